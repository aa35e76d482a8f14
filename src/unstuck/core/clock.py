"""What time it is, passed in wherever it matters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Tells the current instant, aware and in UTC."""


def system_clock() -> datetime:
    """The clock of this machine."""
    return datetime.now(UTC)
