"""Reading the queue of dead letters."""

from __future__ import annotations

import json
import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import Any, Self

import kombu

from unstuck.core.broker import is_lasting
from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.fields import Fields
from unstuck.letters import drops
from unstuck.letters.letter import Letter
from unstuck.letters.message import StoredMessage
from unstuck.letters.queue import NAME, name_for
from unstuck.rabbit.queues import dead_letter_queue

logger = logging.getLogger(__name__)

PREFETCH = 100
POLL_SECONDS = 0.25


class Received(ABC):
    """One letter in hand; it stays on the broker until it is acknowledged."""

    @abstractmethod
    def letter(self) -> Letter | None:
        """The letter, also of what the broker has dropped. What is none is buried as one.

        ``None`` of a message that came to its wanted end, and need only be forgotten.
        """

    @abstractmethod
    def ack(self) -> None:
        """The broker may forget it."""


class LetterReader(ABC):
    """Reads dead letters from the broker, within a ``with`` block."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._name = name

    def __enter__(self) -> Self:
        self._connection.ensure_connection(max_retries=1, interval_start=0)
        self._open(self._connection.default_channel)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    @abstractmethod
    def read(self, at_most: int, *, wait: float) -> list[Received]:
        """The letters that wait, up to a number; none after ``wait`` seconds of none."""

    @abstractmethod
    def _open(self, channel: Any) -> None: ...


def letter_reader(app: Any) -> LetterReader:
    """A reader for the broker of this app."""
    connection, name = app.connection_for_read(), name_for(app)
    if _pops_before_it_notes(connection):
        return _RedisReader(connection, name)
    return _ConsumingReader(connection, name)


def _pops_before_it_notes(connection: Any) -> bool:
    """Whether a consumer that dies can take messages along: kombu's own Redis."""
    transport = connection.transport
    return transport.driver_type == "redis" and not is_lasting(transport.Channel)


class _ConsumingReader(LetterReader):
    """A plain consumer: what a dead one held is the broker's again."""

    def _open(self, channel: Any) -> None:
        self._received: deque[Any] = deque()
        consumer = kombu.Consumer(
            channel,
            queues=[dead_letter_queue(self._name)],
            on_message=self._received.append,
            prefetch_count=PREFETCH,
            accept=["json"],
        )
        consumer.consume()

    def read(self, at_most: int, *, wait: float) -> list[Received]:
        """See ``LetterReader``."""
        batch: list[Received] = []
        while len(batch) < at_most:
            if not self._received and not self._drain(0.05 if batch else wait):
                break
            while self._received and len(batch) < at_most:
                batch.append(_Message(self._received.popleft()))
        return batch

    def _drain(self, seconds: float) -> bool:
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True


class _RedisReader(LetterReader):
    """Looks at the list and removes what is archived.

    kombu would pop a letter first and write down that it has it after: a reader killed
    in between would take it along. Two readers may look at the same letters; each is
    archived once and removed once.
    """

    def _open(self, channel: Any) -> None:
        self._channel = channel
        # kombu's client adds the prefix itself to some commands, and not to these.
        self._key = f"{channel.global_keyprefix}{self._name}"

    def read(self, at_most: int, *, wait: float) -> list[Received]:
        """See ``LetterReader``."""
        deadline = time.monotonic() + wait
        while not (raws := self._channel.client.lrange(self._key, -at_most, -1)):
            if time.monotonic() >= deadline:
                return []
            time.sleep(POLL_SECONDS)
        # Publishers push on the left: the oldest is on the right.
        return [_Item(self._channel, self._key, raw) for raw in reversed(raws)]


class _Message(Received):
    def __init__(self, message: Any) -> None:
        self._message = message

    def letter(self) -> Letter | None:
        return letter_in(self._message)

    def ack(self) -> None:
        self._message.ack()


class _Item(Received):
    def __init__(self, channel: Any, key: str, raw: bytes) -> None:
        self._channel, self._key, self._raw = channel, key, raw

    def letter(self) -> Letter | None:
        try:
            message = self._channel.Message(json.loads(self._raw), self._channel)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _no_letter(StoredMessage(body=self._raw, queue=NAME), error)
        return letter_in(message)

    def ack(self) -> None:
        self._channel.client.lrem(self._key, -1, self._raw)


def letter_in(message: Any) -> Letter | None:
    """The letter in a message of the queue; see ``Received``."""
    try:
        return Letter.from_wire(json.loads(message.body))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if drops.was_dropped(message):
            return None if drops.is_over(message) else drops.letter_of_drop(message)
        return _no_letter(StoredMessage.of(message, NAME), error)


def _no_letter(stored: StoredMessage, error: Exception) -> Letter:
    logger.error(
        "What is in the queue of letters is none: %(fields)s",
        Fields(error=error, body=stored.body[:200]),
    )
    return Letter(
        message=stored,
        task_id="",
        task_name="",
        reason=Reason.UNDECODABLE,
        buried_at=system_clock(),
        exception_type=type(error).__name__,
        exception_message=f"Not a letter of unstuck: {error}",
        # Read again after a crash, it must be found by the same id.
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, stored.body.hex())),
    )
