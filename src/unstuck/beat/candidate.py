"""What Celery's loop of beat drives: it sends while it leads, and else asks to lead."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from unstuck.beat.leadership import Leadership
from unstuck.beat.sending import Sending
from unstuck.core.errors import LockError
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

ASK_SECONDS = 1.0
"""So often one that does not lead asks whether it may."""

PAUSE_SECONDS = 0.5
"""So long the loop sleeps at most: then it says that it is well, and hears signals."""

AFTER_FAILURE_SECONDS = 3.0


class Candidate:
    """A beat among several. It has a scheduler, and its store open, only while it leads."""

    def __init__(
        self,
        identity: str,
        leadership: Leadership,
        make_scheduler: Callable[[], Any],
        max_interval: float,
        *,
        alive: Callable[[], None],
        tell: Callable[[Any], None],
    ) -> None:
        """``identity`` is what all of them are called together.

        ``alive`` is called twice a second, unless something hangs; ``tell`` with the
        scheduler after what it did.
        """
        self.max_interval = max_interval
        self._identity = identity
        self._leadership = leadership
        self._make_scheduler = make_scheduler
        self._alive, self._tell = alive, tell
        self._scheduler: Any = None
        self._failure = ""
        self._ask_at = self._tick_at = time.monotonic()

    def tick(self) -> float:
        """Do what is due; seconds after which to come again."""
        self._alive()
        if not self._leads():
            return PAUSE_SECONDS
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + self._ticked()
        if self._scheduler is not None:
            self._tell(self._scheduler)
        return min(max(0.0, self._tick_at - time.monotonic()), PAUSE_SECONDS)

    def should_sync(self) -> bool:
        """Celery's question; the scheduler stores what it did at once."""
        return False

    def close(self) -> None:
        """Let the next one lead at once."""
        self._close_scheduler()
        self._leadership.give_up()

    def _leads(self) -> bool:
        if self._scheduler is not None and self._leadership.is_ours:
            return True
        if self._scheduler is not None:
            logger.warning("This beat does not lead any more")
            self._close_scheduler()
        now = time.monotonic()
        if now < self._ask_at:
            return False
        self._ask_at = now + ASK_SECONDS
        return self._leadership.ask() and self._begins()

    def _begins(self) -> bool:
        try:
            self._scheduler = self._make_scheduler()
            if isinstance(self._scheduler, Sending):
                self._scheduler.lead(self._identity, self._leadership)
        except Exception as error:
            # Another one may have what this one has not: its file, its database.
            self._fail("opening its schedule", error)
            return False
        logger.info("This beat leads, and sends what is due")
        self._tick_at = time.monotonic()
        return True

    def _ticked(self) -> float:
        try:
            interval = self._scheduler.tick()
            if isinstance(self._scheduler, Sending):
                self._scheduler.write_down()
        except LockError as error:
            logger.warning(
                "Beat waits for what keeps its lock: %(fields)s", Fields(error=error)
            )
            return AFTER_FAILURE_SECONDS
        except Exception as error:
            self._fail("sending what is due", error)
            return 0.0
        return float(interval or 0.0)

    def _fail(self, step: str, error: Exception) -> None:
        # In full when it is new; then it may go on for long.
        is_new = repr(error) != self._failure
        self._failure = repr(error)
        logger.error(
            "Beat failed, and opens its schedule anew if no other one leads: %(fields)s",
            Fields(step=step, error=error),
            exc_info=is_new,
        )
        self.close()
        self._ask_at = time.monotonic() + AFTER_FAILURE_SECONDS

    def _close_scheduler(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            with contextlib.suppress(Exception):
                scheduler.close()
