# Everything a person does with this repository. Each target sets up what it needs.

.DEFAULT_GOAL := help
BIN := .venv/bin
PORT ?= 8000
OPTIONS ?=
export PYTHON

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## The example shop with everything it needs, on http://127.0.0.1:$PORT
	@cd example && exec ../$(BIN)/python manage.py unstuck dev --port $(PORT) \
		--free-port SHOP_RECEIVER_PORT \
		--with "receiver=python manage.py receiver" \
		--with "traffic=python manage.py traffic" $(OPTIONS)

test: setup ## All checks and all tests, with real servers; what CI runs
	@scripts/install-servers
	@scripts/check lint
	@scripts/check tests

soak: setup ## The crash tests at full length; writes docs/proof (half an hour)
	@scripts/install-servers
	@scripts/soak

check: setup ## Format, lint, types, imports and unit tests: under a minute
	@scripts/check units

format: setup ## Let ruff format the code and fix what it can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: setup ## The benchmarks, side by side with other queues
	@scripts/bench

docs: setup ## Check the links and anchors of the documentation
	@$(BIN)/python scripts/check_docs.py

clean: ## Remove all that make has made
	@rm -rf .venv .venv-oldest .bench-venv .unstuck example/.unstuck build dist .coverage \
		.mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests example scripts benchmarks -name __pycache__ -prune -exec rm -rf {} +

setup:
	@scripts/setup

.PHONY: help demo test soak check format bench docs clean setup
