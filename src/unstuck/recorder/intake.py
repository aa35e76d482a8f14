"""Facts between the channel and the database."""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from django.db import Error, close_old_connections

from unstuck.core.facts import Fact
from unstuck.recorder import facts
from unstuck.worker.channel import FactChannel

logger = logging.getLogger(__name__)

BATCH = 500
MOST_HELD = 5_000
TELL_SECONDS = 60


class Intake:
    """Takes facts from the channel and stores them; holds a bounded number meanwhile."""

    def __init__(
        self,
        channel: FactChannel,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._monotonic = monotonic
        self._readable = select.poll()
        self._readable.register(channel.fileno(), select.POLLIN)
        self._held: deque[Fact] = deque()
        self._dropped = 0
        self._tell_at = monotonic()

    def wait(self, seconds: float) -> None:
        """Take facts for so long, or until there is a batch of them."""
        self._tell_dropped()
        deadline = self._monotonic() + seconds
        taken = 0
        while taken < BATCH:
            left = max(deadline - self._monotonic(), 0)
            if not self._readable.poll(left * 1000):
                return
            taken += self.take()

    def take(self) -> int:
        """Take what is in the channel; the oldest of what is too much is dropped.

        Says how many facts that were.
        """
        taken = self._channel.receive()
        self._held.extend(taken)
        while len(self._held) > MOST_HELD:
            self._held.popleft()
            self._dropped += 1
        self._dropped += self._channel.take_dropped()
        self._tell_dropped()
        return len(taken)

    def store(self) -> bool:
        """Store a batch; says whether more wait. Raises what the database raises."""
        batch = list(islice(self._held, BATCH))
        if batch:
            close_old_connections()
            facts.store(batch)
            for _ in batch:
                self._held.popleft()
        return bool(self._held)

    def finish(self) -> None:
        """Store all that is there; what is in hand and cannot be stored is lost."""
        with suppress(Error):
            while self.take() or self._held:
                self.store()
        if self._held:
            logger.error("%s facts are lost with the recorder", len(self._held))

    def _tell_dropped(self) -> None:
        if self._dropped and self._monotonic() >= self._tell_at:
            logger.warning(
                "%s facts (runs, minutes, incidents) were dropped: they came faster than "
                "they could be stored",
                self._dropped,
            )
            self._dropped = 0
            self._tell_at = self._monotonic() + TELL_SECONDS
