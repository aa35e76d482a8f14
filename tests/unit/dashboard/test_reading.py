"""Reading for a page is bounded, also on SQLite, and leaves the connection as it was."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection

from unstuck.dashboard import reading as bounded
from unstuck.dashboard.reading import NotRead, Parts, reading

pytestmark = pytest.mark.django_db

ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT count(*) FROM n"
)


def _ask(sql: str) -> Any:
    with connection.cursor() as cursor:
        return cursor.execute(sql).fetchone()[0]


def test_a_statement_that_never_ends_is_stopped() -> None:
    """And the next one finds a connection that is well."""
    began = time.monotonic()
    with pytest.raises(NotRead) as caught, reading(0.2):
        _ask(ENDLESS)

    assert caught.value.why == "slow"
    assert time.monotonic() - began < 30
    assert _ask("SELECT 1") == 1


def test_the_patience_of_the_project_comes_back() -> None:
    """Only our own reading is in a hurry."""
    before = _ask("PRAGMA busy_timeout")
    with reading():
        within = _ask("PRAGMA busy_timeout")

    assert within <= bounded.LOCK_SECONDS * 1000
    assert _ask("PRAGMA busy_timeout") == before


def test_a_table_that_is_missing_is_told_apart() -> None:
    """The remedy is another one."""
    with pytest.raises(NotRead) as caught, reading():
        _ask("SELECT count(*) FROM unstuck_no_such")

    assert caught.value.why == "unmigrated"


def test_a_slow_part_leaves_the_others() -> None:
    """As long as the page has time."""
    parts = Parts()
    bounded_seconds = bounded.STATEMENT_SECONDS
    assert bounded_seconds < bounded.PAGE_SECONDS

    assert parts.read(lambda: _ask("SELECT 1")).value == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "STATEMENT_SECONDS", 0.1)
        slow = parts.read(lambda: _ask(ENDLESS))
    well = parts.read(lambda: _ask("SELECT 2"))

    assert (slow.value, slow.problem) == (None, "slow")
    assert (well.value, well.problem) == (2, "")


def test_what_comes_after_the_time_of_a_page_is_not_asked() -> None:
    """Nobody waits for a page for ever."""
    times = iter([0.0, bounded.PAGE_SECONDS])
    parts = Parts(lambda: next(times))

    part = parts.read(lambda: pytest.fail("it was asked"))

    assert part.problem == "slow"
