"""What the beat that leads tells people: rows of the database, when it is there.

A thread writes them: no database keeps beat from sending.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from unstuck import conf
from unstuck.beat.seen import Eye, Seen
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""So often the schedule is looked at."""


class Record:
    """Tells of the entries of one schedule, softly."""

    def __init__(self, beat: str, node: str) -> None:
        self._beat, self._node = beat, node
        self._has_tables = conf.has_our_tables()
        self._eye = Eye()
        self._look_at = 0.0
        self._seen: Sequence[Seen] | None = None
        self._there_is_more = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def look(self, scheduler: Any) -> None:
        """Have a scheduler's entries told, if they were not just now."""
        now = time.monotonic()
        if not self._has_tables or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            seen = self._eye.look(scheduler)
        except Exception:
            logger.exception("Beat could not look at its own schedule")
            return
        with self._there_is_more:
            self._seen = seen
            self._there_is_more.notify()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._write_on, name="unstuck beat record", daemon=True
            )
            self._thread.start()

    def _write_on(self) -> None:
        # Its models cannot be imported before Django has loaded the apps.
        from unstuck.beat.rows import Rows

        rows = Rows(self._beat, self._node)
        while True:
            with self._there_is_more:
                self._there_is_more.wait_for(lambda: self._seen is not None)
                seen, self._seen = self._seen, None
            try:
                rows.write(seen or ())
            except Exception as error:
                self._say_failing(error)
            else:
                self._say_well()

    def _say_failing(self, error: Exception) -> None:
        if not self._is_failing:
            logger.error(
                "Beat sends, but the database takes no news of it: %(fields)s",
                Fields(error=error),
            )
        self._is_failing = True

    def _say_well(self) -> None:
        if self._is_failing:
            logger.warning("The database takes news of beat again")
        self._is_failing = False
