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
