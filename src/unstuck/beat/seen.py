"""An entry of a schedule as people are told of it, whatever its scheduler is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery.utils.time import maybe_make_aware

from unstuck.beat.sending import Sending
from unstuck.core.clock import system_clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is to tell of an entry."""

    name: str
    task_name: str
    schedule: str
    enabled: bool
    last_run_at: datetime | None
    runs: int
    next_run_at: datetime | None
    last_error: str = ""


Basis = tuple[str, datetime]
"""What decides when an entry is due: its schedule, and when it was sent last."""


class Eye:
    """Looks at one schedule again and again."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[Basis, datetime | None]] = {}

    def look(self, scheduler: Any) -> list[Seen]:
        """Every entry, also those that are not sent now."""
        sends = isinstance(scheduler, Sending)
        seen: dict[str, Seen] = {}
        for entry in scheduler.schedule.values():
            failed = scheduler.unsent.get(entry.name) if sends else None
            error = failed.error if failed else ""
            seen[entry.name] = self._seen(entry, last_error=error)
        for row in _stored(scheduler, list(seen)):
            seen[row.name] = self._seen(row, enabled=row.enabled)
        self._due = {name: due for name, due in self._due.items() if name in seen}
        return list(seen.values())

    def _seen(self, entry: Any, *, enabled: bool = True, last_error: str = "") -> Seen:
        # An entry of django-celery-beat is advanced by a copy, which has the same row.
        told = getattr(entry, "model", entry)
        last: datetime | None = told.last_run_at
        return Seen(
            name=entry.name,
            task_name=entry.task,
            schedule=_in_words(entry.schedule),
            enabled=enabled,
            last_run_at=last and _instant(last),
            runs=told.total_run_count or 0,
            next_run_at=self._next(entry, last) if enabled and last else None,
            last_error=last_error,
        )

    def _next(self, entry: Any, last: datetime) -> datetime | None:
        """When it is due after it was sent last, which may have passed."""
        basis = (_in_words(entry.schedule), last)
        known = self._due.get(entry.name)
        if known is None or known[0] != basis:
            known = self._due[entry.name] = (basis, _due_after(entry, last))
        return known[1]


def _stored(scheduler: Any, loaded: list[str]) -> Iterable[Any]:
    """Rows of django-celery-beat that it has not loaded: disabled, or due in hours."""
    model = getattr(scheduler, "Model", None)
    if model is None or not hasattr(model, "_default_manager"):
        return ()
    rows: Any = model._default_manager.exclude(name__in=loaded)
    found: Iterable[Any] = rows.prefetch_related(
        "interval", "crontab", "solar", "clocked"
    )
    return found


def _due_after(entry: Any, last: datetime) -> datetime | None:
    schedule = entry.schedule
    start = getattr(getattr(entry, "model", entry), "start_time", None)
    try:
        wait = schedule.remaining_estimate(_instant(last).astimezone(schedule.tz))
    except Exception:
        # It is the project's own, or what it needs is not there: nobody can tell.
        return None
    due = _rounded(system_clock() + wait)
    return max(due, _instant(start)) if start else due


def _in_words(schedule: Any) -> str:
    """A schedule as Celery writes it, without what it is wrapped in."""
    return repr(schedule).removeprefix("<").removesuffix(">")


def _rounded(moment: datetime) -> datetime:
    """Without the little by which two looks at the clock differ."""
    return datetime.fromtimestamp(round(moment.timestamp(), 1), UTC)


def _instant(moment: datetime) -> datetime:
    """Without a zone it is of UTC, as for Celery."""
    instant: datetime = maybe_make_aware(moment).astimezone(UTC)
    return instant
