"""Checks of the Celery app, and all checks together."""

from __future__ import annotations

import socket
import sys
import types
from typing import Any

import celery
import pytest
from django.core import checks
from django.test import override_settings

import unstuck.checks
from tests.unit import dead
from unstuck.checks.application import messages


def ids() -> list[str | None]:
    """What Django's own run of our checks finds."""
    return [message.id for message in checks.run_checks(tags=[unstuck.checks.TAG])]


def test_a_stock_app_is_a_warning_that_says_which_import_to_swap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """W003 names the module where the app is made."""
    app = celery.Celery("shop", set_as_current=False)
    module: Any = types.ModuleType("shop.celery")
    module.Celery, module.app = celery.Celery, app
    monkeypatch.setitem(sys.modules, "shop.celery", module)

    (message,) = messages(app)

    assert message.id == "unstuck.W003"
    assert "celery.app.base.Celery" in message.msg
    assert "In shop.celery, write `from unstuck import Celery`" in str(message.hint)


def test_a_class_of_the_project_s_own_is_told_what_to_derive_from() -> None:
    """W003 does not speak of an import where there is none to swap."""

    class Shop(celery.Celery):
        pass

    (message,) = messages(Shop("shop", set_as_current=False))

    assert "from unstuck.Celery" in str(message.hint)


def test_a_project_without_an_app_is_no_warning() -> None:
    """W003 is silent where there is nothing to guard."""
    assert list(messages(None)) == []


def test_a_project_as_the_documentation_writes_it_has_no_findings() -> None:
    """Our own app, and no settings at all."""
    with dead.celery_app():
        assert ids() == []


def test_all_findings_come_at_once() -> None:
    """Of the settings of both kinds and of the tasks."""
    with (
        dead.celery_app(task_max_retries=None) as app,
        override_settings(UNSTUCK={"MAX_STRIKE": 3, "ALERTS": 7, "DATABASE": "?"}),
    ):
        app.conf.update(task_time_limit=10, task_soft_time_limit=20)

        found = ids()

    assert sorted(map(str, found)) == [
        f"unstuck.{number}" for number in ("E001", "E002", "E003", "E006", "W001")
    ]


def test_limits_of_the_wrong_type_do_not_make_the_checks_stumble() -> None:
    """No task could be made with them; E005 comes alone."""
    with dead.celery_app(task_time_limit="300"):
        assert ids() == ["unstuck.E005"]


def test_checks_connect_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """``manage.py check`` works on a machine without any server."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a check opened a connection")

    with dead.celery_app() as app:
        app.conf.broker_url = "redis://127.0.0.1:1/0"
        monkeypatch.setattr(socket.socket, "connect", refuse)

        assert ids() == []
