"""Facts between the channel and the database."""

from __future__ import annotations

import logging
import select
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error

from unstuck.core.clock import system_clock
from unstuck.core.facts import Fact, Incident, Running
from unstuck.fields import Fields
from unstuck.recorder import facts
from unstuck.worker.channel import FactChannel

logger = logging.getLogger(__name__)

BATCH = 500
MOST_HELD = 5_000
TELL_SECONDS = 60
LOOK_SECONDS = 0.1


class Intake:
    """Takes facts from the channel and stores them; holds a bounded number meanwhile."""

    def __init__(
        self,
        channel: FactChannel,
        monotonic: Callable[[], float] = time.monotonic,
        node: str = "",
    ) -> None:
        """``node`` is the name of whose facts they are."""
        self._channel = channel
        self._monotonic = monotonic
        self._node = node
        self._taking = threading.Lock()
        self._held: deque[tuple[float, Fact]] = deque()
        """Each with when it came."""

        self._batch: list[Fact] = []
        """What is being stored: whole and the same until it is."""

        self._batch_since = 0.0

        self._batch_id = uuid.uuid4()
        self.dropped = 0
        """How many facts came faster than they could be stored."""

        self.left_out = 0
        """How many facts no database takes."""

        self.running: Sequence[Mapping[str, Any]] = ()
        """What the node runs, by what it has said last."""

        self._logged = 0
        self._reported = 0
        self._tell_at = self._report_at = monotonic()

    @contextmanager
    def always_taking(self) -> Iterator[None]:
        """Within it facts are taken also while the database or the broker is waited for.

        The kernel holds fewer of them than we do.
        """
        stopped = threading.Event()
        thread = threading.Thread(target=self._take_until, args=[stopped], daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def wait(self, seconds: float) -> None:
        """Take facts for so long, or until there is a batch of them."""
        self._tell_dropped()
        deadline = self._monotonic() + seconds
        taken = 0
        while taken < BATCH:
            left = max(deadline - self._monotonic(), 0)
            if not self._is_readable(left):
                return
            taken += self.take()

    def take(self) -> int:
        """Take what is in the channel; the oldest of what is too much is dropped.

        Says how many facts that were.
        """
        with self._taking:
            taken = self._channel.receive()
            self._hold(taken)
            while len(self._held) > MOST_HELD:
                self._held.popleft()
                self.dropped += 1
            self.dropped += self._channel.take_dropped()
            self._tell_dropped()
        return len(taken)

    def _hold(self, taken: Sequence[Fact]) -> None:
        now = self._monotonic()
        for fact in taken:
            if isinstance(fact, Running):
                # For the row of the node, and old when the next one comes.
                self.running = fact.runs
            else:
                self._held.append((now, fact))

    def store(self) -> bool:
        """Store a batch; says whether more wait. Raises what the database raises."""
        if not self._batch:
            self._begin_batch()
        if self._batch:
            batch = facts.Batch(self._node, self._batch_id) if self._node else None
            self.left_out += facts.store(self._batch, batch)
            self._batch = []
            self._report_dropped()
        return bool(self._held)

    @property
    def lag_seconds(self) -> float:
        """How long the oldest fact that is not stored has waited here."""
        with self._taking:
            if not self._batch and not self._held:
                return 0.0
            since = self._batch_since if self._batch else self._held[0][0]
            return self._monotonic() - since

    def finish(self) -> None:
        """Store all that is there; what is in hand and cannot be stored is lost."""
        with suppress(Error):
            while self.take() or self._held or self._batch:
                self.store()
        if lost := len(self._held) + len(self._batch):
            logger.error(
                "Facts are lost with the recorder: %(fields)s", Fields(lost=lost)
            )

    def _take_until(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            if self._is_readable(LOOK_SECONDS):
                self.take()

    def _is_readable(self, seconds: float) -> bool:
        # Each time another one: two threads cannot poll by the same.
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _begin_batch(self) -> None:
        with self._taking:
            number = min(BATCH, len(self._held))
            some = [self._held.popleft() for _ in range(number)]
        if some:
            self._batch_since = some[0][0]
        self._batch = [fact for _, fact in some]
        self._batch_id = uuid.uuid4()

    def _tell_dropped(self) -> None:
        untold = self.dropped - self._logged
        if untold and self._monotonic() >= self._tell_at:
            logger.warning(
                "Facts were dropped, as they came faster than they could be stored: "
                "%(fields)s",
                Fields(dropped=untold),
            )
            self._logged = self.dropped
            self._tell_at = self._monotonic() + TELL_SECONDS

    def _report_dropped(self) -> None:
        """Leave a row that says what is missing, now that rows can be written."""
        missing = self.dropped - self._reported
        if not missing or self._monotonic() < self._report_at:
            return
        self._reported += missing
        self._report_at = self._monotonic() + TELL_SECONDS
        incident = Incident(
            kind="facts_dropped",
            at=system_clock(),
            process="recorder",
            what=f"{missing} {DROPPED}",
            node=self._node,
            details={"dropped": missing},
        )
        with self._taking:
            self._held.append((self._monotonic(), incident))


DROPPED = (
    "facts (runs, minutes, incidents) were dropped: they came faster than they could be "
    "stored"
)
