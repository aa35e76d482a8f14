"""Entries that are due and could not be sent: tried again until they are."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from celery.beat import SchedulingError
from kombu.exceptions import OperationalError

from unstuck.core.backoff import doubled
from unstuck.core.errors import LockBusy, LockError
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

FIRST_WAIT = timedelta(seconds=0.5)
LONGEST_WAIT = timedelta(seconds=5)

OUTAGES = (OperationalError, OSError, LockError)
"""What says that a server is away, and nothing of a task."""


def cause_of(error: Exception) -> BaseException | None:
    """What was raised, which Celery wraps."""
    return error.__context__ if isinstance(error, SchedulingError) else error


@dataclass(slots=True)
class Try:
    """An entry that could not be sent."""

    since: float
    """When it failed first, in seconds since 1970."""

    error: str
    """Why, for people."""

    again_at: float
    """By the monotonic clock."""

    failures: int = 0


class Unsent:
    """Which entries wait for their next try. One that fails keeps no other waiting."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._tries: dict[str, Try] = {}
        self._hurried_at = -math.inf

    def get(self, name: str) -> Try | None:
        """What is known of an entry that could not be sent."""
        return self._tries.get(name)

    def wait_for(self, name: str) -> float:
        """How long to wait with an entry that is due; 0 if it may be sent now."""
        known = self._tries.get(name)
        return max(0.0, known.again_at - self._monotonic()) if known else 0.0

    def failed(self, name: str, error: Exception) -> None:
        """It was not sent; says so once."""
        cause = cause_of(error)
        is_outage = isinstance(cause, OUTAGES)
        said = " ".join(str(cause).split()) or type(cause).__name__
        # What else is raised may quote arguments, which are not for everybody.
        told = said if is_outage else f"{type(cause).__name__}; see the log of beat"
        known = self._tries.get(name)
        if known is None:
            logger.error(
                "Beat could not send an entry, and tries again: %(fields)s",
                Fields(entry=name, error=said),
                exc_info=None if is_outage else error,
            )
            known = self._tries[name] = Try(time.time(), told, 0.0)
        wait = doubled(FIRST_WAIT, known.failures, LONGEST_WAIT).total_seconds()
        known.error = told
        known.failures += 1
        known.again_at = self._monotonic() + wait

    def sent(self, name: str) -> bool:
        """It was sent. Whether others are to be tried sooner: the broker may be back."""
        if (known := self._tries.pop(name, None)) is None:
            return False
        late = time.time() - known.since
        logger.warning(
            "Beat has sent an entry that was late: %(fields)s",
            Fields(entry=name, seconds=round(late, 1)),
        )
        return self._hurry()

    def refused(self, name: str, busy: LockBusy) -> None:
        """It is not to be sent this time: a call of it has not ended."""
        self._tries.pop(name, None)
        logger.info(
            "Beat did not send an entry, as its last call has not ended: %(fields)s",
            Fields(entry=name, error=busy),
        )

    def _hurry(self) -> bool:
        now = self._monotonic()
        # Once for all that wait, and not for each of them again.
        if now < self._hurried_at + FIRST_WAIT.total_seconds():
            return False
        self._hurried_at = now
        waiting = [other for other in self._tries.values() if other.again_at > now]
        for other in waiting:
            other.again_at = now
        return bool(waiting)

    def keep(self, names: set[str]) -> None:
        """Forget those that are in the schedule no more."""
        for name in self._tries.keys() - names:
            del self._tries[name]
