"""When each entry was sent last: notes under the lock of the beats, which all share.

The file ``celerybeat-schedule`` belongs to a host, and the rows of django-celery-beat are
written later. A beat that takes over begins from these.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from celery.utils.time import maybe_make_aware

from unstuck.beat.leadership import Leadership
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

FORGOTTEN_SECONDS = 90 * 86_400.0
"""So long the note of an entry stays that is in no schedule any more."""

GONE_SECONDS = 86_400.0
"""So long an entry may be in no schedule, as while one is rolled out, and goes on."""

CLOCK_SECONDS = 5.0
"""So much the clocks of two hosts may differ."""

LONGEST_NAME = 255

UNREADABLE = (LookupError, TypeError, ValueError, OverflowError, OSError)

CLEANUP = "celery.backend_cleanup"
"""Celery's own entry, which is in no setting."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """When an entry was sent last, in seconds since 1970, and how often until then."""

    at: float
    count: int
    gone: float = 0.0
    """Since when it is in no schedule any more."""

    @classmethod
    def of(cls, entry: Any) -> LastRun:
        """As its scheduler has it."""
        return cls(_seconds(entry.last_run_at), entry.total_run_count or 0)

    @classmethod
    def read(cls, note: str) -> LastRun:
        """What a beat wrote down. Raises one of ``UNREADABLE`` if no beat wrote that."""
        said = json.loads(note)
        run = cls(float(said["at"]), int(said["count"]), float(said.get("gone", 0)))
        datetime.fromtimestamp(run.at, UTC)
        return run

    @property
    def note(self) -> str:
        """For other beats to read."""
        said = {"at": self.at, "count": self.count}
        return json.dumps({**said, "gone": self.gone} if self.gone else said)


class Memory:
    """The notes, as they are now, for the beat that leads."""

    def __init__(self, leadership: Leadership) -> None:
        """Raises ``LockError``."""
        self._leadership = leadership
        self._runs: dict[str, LastRun] = {}
        self._unwritten: dict[str, str] = {}
        for name, note in leadership.notes().items():
            try:
                self._runs[name] = LastRun.read(note)
            except UNREADABLE:
                self._unwritten[name] = ""
        if self._unwritten:
            logger.warning(
                "Beat cannot read when these entries were sent last, and believes the "
                "scheduler: %(fields)s",
                Fields(entries=", ".join(sorted(self._unwritten))),
            )

    def recall(self, entry: Any) -> None:
        """Have an entry know when it was sent last, whoever sent it."""
        known, own = self._runs.get(_key(entry.name)), LastRun.of(entry)
        run = own
        if known is not None and not _knows_better(entry, own, known):
            run = LastRun(known.at, max(own.count, known.count))
        if _is_ahead(run.at):
            # A clock was wrong; the entry would not be due until it were that late.
            run = LastRun(time.time(), run.count)
            self._note(entry.name, run)
        if run != own:
            _tell(entry, run)

    def meet(self, entries: Iterable[Any]) -> None:
        """Note from when on entries count that nobody has sent yet; forget old ones."""
        now = time.time()
        here = {_key(entry.name): LastRun.of(entry) for entry in entries}
        for name, run in here.items():
            if name not in self._runs or self._runs[name].gone:
                self._note(name, run)
        for name in self._runs.keys() - here.keys():
            run = self._runs[name]
            if not run.gone:
                self._note(name, replace(run, gone=now))
            elif run.gone < now - FORGOTTEN_SECONDS:
                del self._runs[name]
                self._unwritten[name] = ""

    def sent(self, entry: Any) -> None:
        """Note that an entry was sent. Raises ``LockError``: then it is to be written."""
        self._note(entry.name, LastRun.of(entry))
        self.write()

    def write(self) -> None:
        """Write down what was not until now. Raises ``LockError``."""
        if self._unwritten:
            self._leadership.note(self._unwritten)
            self._unwritten = {}

    def _note(self, name: str, run: LastRun) -> None:
        self._runs[_key(name)] = run
        self._unwritten[_key(name)] = run.note


def _tell(entry: Any, run: LastRun) -> None:
    # In the zone, or without one, as its scheduler reckons.
    zone = entry.last_run_at.tzinfo
    at = datetime.fromtimestamp(run.at, zone or UTC)
    entry.last_run_at = at if zone else at.replace(tzinfo=None)
    entry.total_run_count = run.count
    if hasattr(entry, "model"):
        # Of django-celery-beat: by this it knows that a one-off entry was sent.
        entry.model.total_run_count = run.count
        entry.model.last_run_at = entry.last_run_at


def _knows_better(entry: Any, own: LastRun, known: LastRun) -> bool:
    """Whether a scheduler's store is to be believed, and not the note."""
    has_row = hasattr(entry, "model")
    # A table has entries that its scheduler does not load for days.
    if known.gone and known.gone < time.time() - GONE_SECONDS and not has_row:
        return True
    if own.count:
        return own.at >= known.at and not _is_ahead(own.at)
    # What its store has never sent began to count when the store was made, or the row
    # was written at the start of a beat. Only a row that people have changed begins then.
    if not has_row or _is_configured(entry) or not entry.model.date_changed:
        return False
    # Not ``own.at``: with a start time it is made to look 30 years older. Django's own
    # clock is the host's where it has no zones.
    changed = entry.model.date_changed.timestamp()
    return changed >= known.at and not _is_ahead(changed)


def _is_ahead(at: float) -> bool:
    return at > time.time() + CLOCK_SECONDS


def _is_configured(entry: Any) -> bool:
    return entry.name == CLEANUP or entry.name in entry.app.conf.beat_schedule


def _seconds(moment: datetime) -> float:
    """Since 1970; without a zone it is of UTC, as for Celery."""
    aware: datetime = maybe_make_aware(moment)
    return aware.timestamp()


def _key(name: str) -> str:
    return name[:LONGEST_NAME]
