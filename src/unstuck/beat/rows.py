"""The rows of a schedule's entries: those that changed, and none of what is gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from unstuck.beat.seen import Seen
from unstuck.core.clock import system_clock
from unstuck.letters.redact import storable
from unstuck.models import PeriodicEntry
from unstuck.recorder.database import upsert, writing
from unstuck.recorder.sound import short

TOLD = (
    "task_name",
    "schedule",
    "enabled",
    "last_run_at",
    "runs",
    "next_run_at",
    "last_error",
    "told_by",
    "told_at",
)


class Rows:
    """What was written of the entries of one schedule."""

    def __init__(self, beat: str, node: str) -> None:
        self._beat, self._node = beat, node
        self._written: dict[str, Seen] | None = None

    def write(self, entries: Sequence[Seen]) -> None:
        """Have a row for each of them. Raises what the database raises."""
        now = {short(entry.name): entry for entry in entries}
        written = self._written or {}
        changed = {name: one for name, one in now.items() if written.get(name) != one}
        is_first = self._written is None
        if not changed and not is_first and not written.keys() - now.keys():
            return
        at = system_clock()
        with writing() as alias:
            rows = [self._row(name, entry, at) for name, entry in changed.items()]
            upsert(alias, ("beat", "name"), rows, TOLD)
            ours = PeriodicEntry.objects.using(alias).filter(beat=self._beat)
            gone = set(ours.values_list("name", flat=True)) - now.keys()
            for name in gone:
                ours.filter(name=name).delete()
        self._written = now

    def _row(self, name: str, entry: Seen, at: datetime) -> PeriodicEntry:
        return PeriodicEntry(
            beat=self._beat,
            name=name,
            task_name=short(entry.task_name),
            schedule=short(entry.schedule),
            enabled=entry.enabled,
            last_run_at=entry.last_run_at,
            runs=entry.runs,
            next_run_at=entry.next_run_at,
            last_error=storable(entry.last_error),
            told_by=short(self._node),
            told_at=at,
        )
