"""A pytest plugin: writes what the crash tests measured as pages of Markdown.

    pytest -p tests.crash.soak --proof docs/proof tests/crash

Tests tell their numbers by pytest's own `record_property`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("unstuck", "celery", "kombu", "billiard", "redis", "amqp", "django")
SERVERS = (("valkey-server", "--version"), ("redis-server", "--version"))


@dataclass(frozen=True)
class Page:
    """A page, and the modules whose tests are on it."""

    name: str
    title: str
    modules: tuple[str, ...]


PAGES = (
    Page(
        "worker-node.md",
        "The worker node, killed in every way",
        (
            "test_hangs",
            "test_soft_limit_race",
            "test_causes",
            "test_recycling",
            "test_hooks",
            "test_database_after_kill",
            "test_chaos",
            "test_supervisor",
            "test_shutdown",
            "test_options",
        ),
    ),
    Page(
        "redis-streams.md",
        "Redis Streams, with everything around it killed, stopped and frozen",
        ("test_streams",),
    ),
    Page(
        "outbox.md",
        "The outbox, with its publishers killed and the broker away half of the time",
        ("test_outbox",),
    ),
    Page(
        "rabbitmq.md",
        "RabbitMQ, with nodes killed, connections closed and servers restarted",
        ("test_rabbitmq",),
    ),
    Page(
        "locks.md",
        "Locks of tasks, with their holders killed, frozen and stuck",
        ("test_locks",),
    ),
    Page(
        "beat.md",
        "Beat, with the leader killed, frozen and ended",
        ("test_beat",),
    ),
)


@dataclass
class Result:
    """One test, as it went."""

    module: str
    name: str
    rule: str
    outcome: str = "passed"
    seconds: float = 0.0
    numbers: list[tuple[str, object]] = field(default_factory=list)


class Proof:
    """Collects the results and writes the pages."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._results: dict[str, Result] = {}
        self._began = datetime.now(UTC)

    @pytest.hookimpl
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take down the rule that each test states."""
        for item in session.items:
            doc = getattr(getattr(item, "obj", None), "__doc__", None) or ""
            module = Path(str(item.path)).stem
            rule = doc.strip().splitlines()[0] if doc.strip() else ""
            self._results[item.nodeid] = Result(module, item.name, rule)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take down how a test went."""
        result = self._results.get(report.nodeid)
        if result is None:
            return
        if report.when == "call":
            result.seconds = report.duration
            result.numbers = list(report.user_properties)
        if report.outcome != "passed":
            result.outcome = report.outcome

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Write the pages of which there are results."""
        self._directory.mkdir(parents=True, exist_ok=True)
        facts = _circumstances(self._began)  # Before the pages change the tree.
        for page in PAGES:
            if any(r.module in page.modules for r in self._results.values()):
                text = "\n".join(self._lines(page, facts)) + "\n"
                (self._directory / page.name).write_text(text)

    def _lines(self, page: Page, facts: Sequence[tuple[str, object]]) -> list[str]:
        results = [r for r in self._results.values() if r.module in page.modules]
        results.sort(key=lambda result: page.modules.index(result.module))
        passed = sum(result.outcome == "passed" for result in results)
        lines = [
            f"# {page.title}",
            "",
            "Written by `make soak`: real processes, real signals, real brokers.",
            "The tests are those of `make test`, in a larger size.",
            "",
            *_table(("", ""), facts),
            "",
            f"{passed} of {len(results)} tests passed.",
        ]
        for result in results:
            lines += ["", f"## {_title(result)}", "", result.rule, ""]
            lines += _table(("", ""), _rows(result))
        return lines


def _title(result: Result) -> str:
    return result.name.removeprefix("test_").replace("_", " ")


def _rows(result: Result) -> list[tuple[str, object]]:
    outcome = [("outcome", result.outcome), ("seconds", round(result.seconds, 1))]
    return [*outcome, *result.numbers]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]


def _circumstances(began: datetime) -> list[tuple[str, object]]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        ("date", began.strftime("%Y-%m-%d %H:%M UTC")),
        ("seconds", round((datetime.now(UTC) - began).total_seconds())),
        ("commit", _output("git", "describe", "--always", "--dirty")),
        ("Python", platform.python_version()),
        ("packages", versions),
        ("Valkey", _valkey()),
        (
            "RabbitMQ",
            _output("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"),
        ),
        ("machine", f"{os.cpu_count()} CPUs, {memory:.0f} GiB, {platform.platform()}"),
    ]


def _valkey() -> str:
    from unstuck.dev.valkey import find_server

    return _output(str(find_server()), "--version")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the pages go."""
    parser.addoption("--proof", help="Write what the crash tests measured here")


def pytest_configure(config: Any) -> None:
    """Collect only when asked to."""
    path = config.getoption("--proof")
    if path:
        config.pluginmanager.register(Proof(Path(path)))
        sys.stdout.flush()
