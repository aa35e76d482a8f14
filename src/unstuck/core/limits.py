"""Which time limits are in force for one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SOFT_SHARE = 0.9
"""A soft limit in force is at most this share of the hard one, so that it comes first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The time limits of one run in seconds; ``None`` is no limit."""

    hard: float | None = None
    soft: float | None = None


def in_force(*nearest_first: Limits) -> Limits:
    """The limits that hold when several say something, nearest first.

    Each limit is the nearest one given; but the soft limit never comes at or after
    the hard one, or else the hard limit of a task would be defeated by the soft limit
    of the project (Celery arms the hard timer only when the soft one has fired).
    """
    hard = _first(limits.hard for limits in nearest_first)
    soft = _first(limits.soft for limits in nearest_first)
    if hard is not None and soft is not None:
        soft = min(soft, hard * SOFT_SHARE)
    return Limits(hard=hard, soft=soft)


def _first(values: Iterable[float | None]) -> float | None:
    # Celery reads 0 as "no limit said", too.
    return next((value for value in values if value), None)
