"""Asking for children: as many as are missing, and less often while they cannot start."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from unstuck.core.backoff import doubled
from unstuck.fields import Fields
from unstuck.pool.nursery import Nursery

logger = logging.getLogger(__name__)

CENSUS_SECONDS = 0.01
"""How often children are counted; a spare makes up for the time between."""

FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=0.2), timedelta(seconds=30)
"""Between children that die before they are ready."""


class Births:
    """The children that were asked for and are not there yet."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self.coming = 0
        """How many they are."""

        self._failures = 0
        self._none_before = 0.0
        self._next_census = 0.0

    def census_is_due(self) -> bool:
        """Whether it is time to count again; if so, the next time is later."""
        now = time.monotonic()
        if now < max(self._next_census, self._none_before):
            return False
        self._next_census = now + CENSUS_SECONDS
        return True

    def count_anew(self) -> None:
        """Something has changed: count at the next occasion."""
        self._next_census = 0.0

    def ask(self, number: int) -> None:
        """Have so many more be born."""
        self.coming += number
        self._nursery.ask(number)

    def came(self) -> None:
        """One of them is there, or will not come."""
        self.coming -= 1

    def went_well(self) -> None:
        """One has come so far that it can work."""
        self._failures = 0

    def postpone(self, why: str) -> None:
        """One could not start: wait before the next, longer each time."""
        now = time.monotonic()
        if now < self._none_before:
            return  # One trouble is one trouble, however many children it hits.
        wait = doubled(FIRST_WAIT, self._failures, LONGEST_WAIT).total_seconds()
        self._failures += 1
        self._none_before = now + wait
        logger.error(
            "A child could not start, which is tried again: %(fields)s",
            Fields(seconds=wait, why=why),
        )
