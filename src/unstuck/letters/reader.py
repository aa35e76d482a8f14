"""Reading the queue of dead letters."""

from __future__ import annotations

import json
import logging
from collections import deque
from types import TracebackType
from typing import Any, Self

import kombu

from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.letters.letter import Letter
from unstuck.letters.message import StoredMessage
from unstuck.letters.queue import dead_letter_queue

logger = logging.getLogger(__name__)

OWN_UNACKED = {
    "unacked_key": "unstuck.unacked",
    "unacked_index_key": "unstuck.unacked_index",
    "unacked_mutex_key": "unstuck.unacked_mutex",
    "visibility_timeout": 60,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
}
"""On Redis, kombu gives a dead reader's messages back after the visibility timeout.

Letters are archived within seconds, tasks are not: hence keys and a timeout of our own.
"""


class LetterReader:
    """A consumer of dead letters; what is not acknowledged goes back to the queue."""

    def __init__(self, app: Any, prefetch: int = 100) -> None:
        self._connection = app.connection_for_read()
        options = self._connection.transport_options
        if self._connection.transport.driver_type == "redis":
            self._connection.transport_options = {**options, **OWN_UNACKED}
        self._prefetch = prefetch
        self._received: deque[Any] = deque()

    def __enter__(self) -> Self:
        self._connection.ensure_connection(max_retries=1)
        self._consumer = kombu.Consumer(
            self._connection.default_channel,
            queues=[dead_letter_queue()],
            on_message=self._received.append,
            prefetch_count=self._prefetch,
            accept=["json"],
        )
        self._consumer.consume()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def read(self, at_most: int, *, wait: float) -> list[Any]:
        """The messages that come within ``wait`` seconds of silence, up to a number."""
        batch: list[Any] = []
        while len(batch) < at_most:
            if not self._received and not self._drain(0.05 if batch else wait):
                break
            while self._received and len(batch) < at_most:
                batch.append(self._received.popleft())
        return batch

    def letter_of(self, message: Any) -> Letter:
        """The letter in a message. What is no letter is buried as one."""
        try:
            return Letter.from_wire(json.loads(message.body))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            stored = StoredMessage.of(message, message.delivery_info["routing_key"])
            logger.exception(
                "No dead letter, but in their queue: %r", stored.body[:200]
            )
            return Letter(
                message=stored,
                task_id="",
                task_name="",
                reason=Reason.UNDECODABLE,
                buried_at=system_clock(),
                exception_type=type(error).__name__,
                exception_message=f"Not a letter of unstuck: {error}",
            )

    def _drain(self, seconds: float) -> bool:
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True
