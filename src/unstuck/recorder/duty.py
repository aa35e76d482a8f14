"""One kind of work among several, with a backoff of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django.db import Error

from unstuck.core.backoff import doubled
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=30)


class Duty:
    """Does its work a turn at a time; one that fails keeps no other from its turn."""

    def __init__(
        self,
        work: Callable[[], bool],
        waits: str,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        longest: timedelta = LONGEST_WAIT,
    ) -> None:
        """``work`` says whether there is more to do; ``waits`` is for the log."""
        self._longest = longest
        self._work = work
        self._waits = waits
        self._monotonic = monotonic
        self._failures = 0
        self._not_before = monotonic()
        self.database_away_since: float | None = None
        """Since when the database is what this fails at."""

    def turn(self) -> bool:
        """Work, unless the last failure is too recent; says whether there is more."""
        if self._monotonic() < self._not_before:
            return False
        try:
            more = self._work()
        except Exception as error:
            self._put_off(error)
            return False
        self._failures = 0
        self.database_away_since = None
        return more

    def _put_off(self, error: Exception) -> None:
        wait = doubled(FIRST_WAIT, self._failures, self._longest).total_seconds()
        self._failures += 1
        self._not_before = self._monotonic() + wait
        where = "database" if isinstance(error, Error) else "broker"
        if where == "database" and self.database_away_since is None:
            self.database_away_since = self._monotonic()
        logger.error(
            "The recorder got no further, which is tried again: %(fields)s",
            Fields(away=where, so=self._waits, seconds=wait, error=error),
        )
