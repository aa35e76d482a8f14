"""One kind of work among several, with a backoff of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django.db import Error

from unstuck.core.backoff import doubled
from unstuck.fields import Fields, worded
from unstuck.recorder.database import lacks_tables, remedy

logger = logging.getLogger(__name__)

FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=30)

SAY_AGAIN_SECONDS = 300.0
"""How often a trouble that lasts is told."""


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
        self._failing_since = 0.0
        self._said: set[str] = set()
        self._say_again_at = 0.0
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
        if self._failures:
            self._recover()
        return more

    def _recover(self) -> None:
        self._failures = 0
        self.database_away_since = None
        seconds = round(self._monotonic() - self._failing_since, 1)
        # As a warning, for those who have read the error.
        logger.warning(
            "The recorder gets on again with what had failed: %(fields)s",
            Fields(so=self._waits, seconds=seconds),
        )

    def _put_off(self, error: Exception) -> None:
        now = self._monotonic()
        wait = doubled(FIRST_WAIT, self._failures, self._longest).total_seconds()
        self._not_before = now + wait
        if not self._failures:
            self._failing_since, self._say_again_at = now, now
        self._failures += 1
        if isinstance(error, Error) and self.database_away_since is None:
            self.database_away_since = now
        if self._is_news(error):
            known = {"away": _what(error), "so": self._waits, "seconds": wait}
            logger.error(
                "The recorder got no further, which is tried again: %(fields)s",
                Fields(known, error=error, **remedy(error)),
            )

    def _is_news(self, error: Exception) -> bool:
        """Whether it was not said yet of this trouble, or long ago."""
        if self._monotonic() >= self._say_again_at:
            self._said.clear()
            self._say_again_at = self._monotonic() + SAY_AGAIN_SECONDS
        # What PostgreSQL says in further lines differs each time.
        said = worded(error).partition("\n")[0]
        is_news = said not in self._said
        self._said.add(said)
        return is_news


def _what(error: Exception) -> str:
    if not isinstance(error, Error):
        return "broker"
    return "tables" if lacks_tables(error) else "database"
