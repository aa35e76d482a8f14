"""Values as every database takes them, and gives them back."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from uuid import NAMESPACE_OID, UUID, uuid5

from unstuck.core.clock import system_clock
from unstuck.letters.redact import clean

SHORT = 255

FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(2200, 1, 1, tzinfo=UTC)
"""Beyond is no time of ours. PostgreSQL stores more than Python reads, and a time zone
moves the first and the last day of the calendar out of it."""


def short(text: str) -> str:
    """Text that fits a column for names."""
    return clean(text)[:SHORT]


def identity(text: str) -> UUID:
    """The id in ``text``; of what is none, always the same one."""
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError):
        return uuid5(NAMESPACE_OID, clean(str(text)))


def instant(moment: datetime) -> datetime:
    """``moment`` in UTC, which is what one without a zone is in; now, if it can't be."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC) if FIRST <= aware < LAST else system_clock()


def number(value: float | None) -> float | None:
    """A number that can be added up; ``None`` is unknown."""
    return value if value is not None and math.isfinite(value) else None
