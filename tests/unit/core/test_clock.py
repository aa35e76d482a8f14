"""The clock of this machine."""

from __future__ import annotations

from datetime import UTC, datetime

from unstuck.core.clock import system_clock


def test_the_system_clock_is_aware_and_in_utc() -> None:
    """Instants of two hosts in two time zones can be compared."""
    before = datetime.now(UTC)

    now = system_clock()

    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC
