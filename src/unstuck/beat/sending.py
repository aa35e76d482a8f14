"""The project's own scheduler, which with us advances an entry only when it was sent.

Celery advances it first, and forgets it until its next time when it could not be sent.
"""

from __future__ import annotations

import logging
import time
from functools import cache
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from celery.beat import Scheduler
from celery.schedules import schedstate

from unstuck.beat.leadership import Leadership
from unstuck.beat.memory import CLOCK_SECONDS, LastRun, Memory
from unstuck.beat.unsent import Unsent, cause_of
from unstuck.core.errors import LockBusy, LockError
from unstuck.fields import Fields

CELERYS = "celery.beat"

logger = logging.getLogger(CELERYS)
"""Where Celery says the same."""

SAID_BY_US = ("Scheduler: Sending due task %s (%s)", "Message Error: %s\n%s")
"""What Celery would say anew with each try, the second one with a whole stack."""

PAUSE_SECONDS = 0.1
"""At least so long an entry waits that is looked at too soon."""


class Sending:
    """What goes on top of a scheduler class; begins with ``lead``."""

    producer = None
    """Celery's waits for a broker that is away; that of a task is bounded."""

    _leadership: Leadership
    _memory: Memory
    _unsent: Unsent
    _identity: str
    _refusal: Exception | None = None
    _ahead = 0.0
    """By how much the clock of the host is ahead of the monotonic one."""

    _heap: Any

    def lead(self: Any, identity: str, leadership: Leadership) -> None:
        """Begin where the beat before has ended. Raises ``LockError``."""
        self._identity = identity
        self._leadership = leadership
        self._memory = Memory(leadership)
        self._unsent = Unsent()
        logging.getLogger(CELERYS).addFilter(_is_not_said_by_us)

    @property
    def unsent(self) -> Unsent:
        """Those that could not be sent."""
        return self._unsent

    def tick(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Send what is due, one entry at a time, and what could not be sent before."""
        if self._clock_was_set_back():
            # To the entries, and to the heap, this is far ahead of now.
            self._heap = None
        return super().tick(*args, **kwargs)  # type: ignore[misc]

    def populate_heap(self: Any, *args: Any, **kwargs: Any) -> None:
        """The schedule is new, or was changed."""
        self._heap = None
        entries = list(self.schedule.values())
        for entry in entries:
            self._memory.recall(entry)
        self._memory.meet(entries)
        self._unsent.keep({entry.name for entry in entries})
        super().populate_heap(*args, **kwargs)  # type: ignore[misc]

    def is_due(self: Any, entry: Any) -> Any:
        """As its schedule says, but not before it is to be tried again."""
        if wait := self._unsent.wait_for(entry.name):
            return schedstate(False, max(wait, PAUSE_SECONDS))
        return super().is_due(entry)  # type: ignore[misc]

    def _when(self: Any, entry: Any, after: Any, *args: Any, **kwargs: Any) -> Any:
        """An entry's place in the heap: one that was not sent comes again soon."""
        if after and (wait := self._unsent.wait_for(entry.name)):
            after = min(after, wait)
        return super()._when(entry, after, *args, **kwargs)  # type: ignore[misc]

    def reserve(self: Any, entry: Any) -> Any:
        """Celery's step before sending: here it is sent first."""
        if not self._send(entry):
            return entry
        advanced = super().reserve(entry)  # type: ignore[misc]
        try:
            self._memory.sent(advanced)
        except LockError as error:
            logger.warning(
                "Beat writes down later what it has sent: %(fields)s",
                Fields(error=error),
            )
        self._do_sync()
        return advanced

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Celery's step after that. Nothing: it has been sent."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's, whose ``apply_entry`` keeps to itself that this failed."""
        try:
            return super().apply_async(*args, **kwargs)  # type: ignore[misc]
        except Exception as error:
            self._refusal = error
            raise

    def _clock_was_set_back(self) -> bool:
        ahead, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead < ahead - CLOCK_SECONDS

    def _send(self: Any, entry: Any) -> bool:
        """Whether its next time counts now: it was sent, or need not be this time."""
        own = entry.options
        # The next beat, if this one dies before it has noted it, sends the same task.
        entry.options = {"task_id": self._task_id(entry), "retry": False, **(own or {})}
        self._refusal = None
        try:
            self._leadership.confirm()
            if self._unsent.get(entry.name) is None:
                logger.info(
                    "Scheduler: Sending due task: %(fields)s",
                    Fields(entry=entry.name, task=entry.task),
                )
            # Not past it: what watches a beat, such as Sentry, has put itself there.
            super().apply_entry(entry, producer=self.producer)  # type: ignore[misc]
        except Exception as error:
            self._refusal = error
        finally:
            entry.options = own
        done: bool = self._is_done_with(entry.name, self._refusal)
        return done

    def _is_done_with(self, name: str, refusal: Exception | None) -> bool:
        if refusal is None:
            if self._unsent.sent(name):
                # What was not advanced is due, and comes first.
                self._heap = None
            return True
        if isinstance(busy := cause_of(refusal), LockBusy):
            self._unsent.refused(name, busy)
            return True
        self._unsent.failed(name, refusal)
        return False

    def _task_id(self, entry: Any) -> str:
        slot = f"{self._identity}/{entry.name}/{LastRun.of(entry).at!r}"
        return str(uuid5(NAMESPACE_OID, slot))

    def write_down(self) -> None:
        """What could not be noted yet."""
        self._memory.write()

    def _do_sync(self: Any) -> None:
        # What was sent was sent, whatever becomes of the scheduler's own store.
        try:
            super()._do_sync()  # type: ignore[misc]
        except Exception:
            logger.exception("The scheduler could not store when entries were sent")


def _is_not_said_by_us(record: logging.LogRecord) -> bool:
    return record.msg not in SAID_BY_US


@cache
def sending(scheduler: type[Any]) -> type[Any]:
    """The same scheduler class, on top of which is ours.

    One with a ``tick`` or an ``apply_entry`` of its own sends in its own way, and is only
    told when.
    """
    if issubclass(scheduler, Sending) or _sends_in_its_own_way(scheduler):
        return scheduler
    return type(
        scheduler.__name__, (Sending, scheduler), {"__doc__": scheduler.__doc__}
    )


def _sends_in_its_own_way(scheduler: type[Any]) -> bool:
    return (
        scheduler.tick is not Scheduler.tick
        or scheduler.apply_entry is not Scheduler.apply_entry
    )
