"""Letters as rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.dead import archived
from unstuck import Celery

pytestmark = pytest.mark.django_db


def test_what_is_known_of_the_run_has_its_columns(app: Celery) -> None:
    """Where it stood, what it waited for, and what it used up."""
    known: dict[str, Any] = {
        "stack": "stack",
        "soft_stack": "soft stack",
        "waiting_for": "a socket",
        "attempts": 2,
        "deliveries": 3,
        "pid": 7,
        "runtime_seconds": 9.5,
        "rss_bytes": 2**40,
        "cpu_seconds": 0.5,
        "child_age_seconds": 60.5,
    }

    row = archived(app, **known)

    row.refresh_from_db()
    assert {name: getattr(row, name) for name in known} == known


def test_no_argument_by_position_of_an_unknown_task_is_stored_in_clear(
    app: Celery,
) -> None:
    """No signature says which one is the password. Only the message itself has them."""
    row = archived(
        app,
        args=["bob", "hunter2"],
        kwargs={"user": "bob", "password": "hunter2"},
        task="shop.retired",
    )

    row.refresh_from_db()
    assert row.args == ["[redacted]", "[redacted]"]
    assert row.kwargs == {"user": "bob", "password": "[redacted]"}
    assert b"hunter2" in bytes(row.message)
