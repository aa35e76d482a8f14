"""A corner of the project's broker where a proof is alone: its queues."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, Self

from kombu.exceptions import OperationalError

from unstuck.core import broker
from unstuck.core.errors import BrokerUnreachable, ProofFailed
from unstuck.letters.letter import Letter
from unstuck.letters.queue import asking
from unstuck.letters.reader import LetterReader, letter_reader
from unstuck.prove.apart import (
    Plan,
    is_stock_redis,
    lease_seconds,
    restores_as_told,
    set_apart,
)
from unstuck.rabbit.queues import dead_letter_queue

RESTORE_AT_ONCE = 1000
LETTERS_AT_ONCE = 100
LEAVE_SECONDS = 5.0
"""Beyond the lease: how long the broker may take to notice that nodes are gone."""


class Corner:
    """The queues of a proof, from its beginning to its end, within a ``with`` block.

    Meanwhile dead letters are taken from the broker, and on Redis Streams this process
    is one more that notices dead nodes. Afterwards nothing of the proof is left there.
    """

    def __init__(self, app: Any, plan: Plan) -> None:
        self._letters: dict[str, Letter] = {}
        self._app = app
        self._plan = plan
        self._stock_redis = is_stock_redis(app)
        self._restores_late = self._stock_redis and not restores_as_told(app)
        self._reader: LetterReader | None = None
        self._open = ExitStack()
        connection = app.connection_for_read()
        self._errors: tuple[type[BaseException], ...] = (
            *connection.connection_errors,
            *connection.channel_errors,
            *(OperationalError, BrokerUnreachable, OSError),
        )
        """What a broker that is away, or goes away, makes kombu raise."""

    def __enter__(self) -> Self:
        self._queue = set_apart(self._app, self._plan)
        try:
            self._declare()
            self.read_letters()
        except KeyboardInterrupt:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.wait_for_leave()
        with suppress(*self._errors):
            self._open.close()
        with suppress(*self._errors), asking(self._app) as connection:
            self._delete(connection)

    @property
    def letters(self) -> list[Letter]:
        """The dead letters so far, each once however often it was delivered."""
        return list(self._letters.values())

    def send(self, task: str, args: tuple[Any, ...], task_id: str) -> bool:
        """Send one task; whether the broker has surely taken it."""
        try:
            self._app.send_task(
                task,
                args,
                task_id=task_id,
                queue=self._queue,
                ignore_result=True,
                delivery_mode=2,
            )
        except self._errors:
            return False
        return True

    def read_letters(self) -> None:
        """Take the dead letters that wait; a broker that is away is asked again later."""
        try:
            if self._reader is None:
                self._reader = self._open.enter_context(letter_reader(self._app))
            while batch := self._reader.read(LETTERS_AT_ONCE, wait=0.0):
                for received in batch:
                    if letter := received.letter():
                        self._letters[letter.id] = letter
                    received.ack()
        except self._errors:
            self._reader = None
            with suppress(*self._errors):
                self._open.close()

    def give_back(self) -> None:
        """Where kombu would take long to: give back what dead nodes of ours had."""
        if self._restores_late:
            with suppress(*self._errors), asking(self._app) as connection:
                # The first call of a channel does it, and of the next ones one in ten.
                connection.default_channel.qos.restore_visible(num=RESTORE_AT_ONCE)

    def wait_for_leave(self) -> None:
        """Wait until the broker knows of no node of ours, but not for ever."""
        lease = lease_seconds(self._app) or 0.0
        give_up_at = time.monotonic() + lease + LEAVE_SECONDS
        with suppress(*self._errors), asking(self._app) as connection:
            while time.monotonic() < give_up_at and self._readers(connection):
                self.read_letters()
                time.sleep(0.1)

    def left(self) -> set[str]:
        """Take what is still in the queue, once nobody reads it; the ids of the tasks.

        Raises ``BrokerUnreachable``.
        """
        try:
            with asking(self._app) as connection:
                return set(self._take_all(connection))
        except self._errors as error:
            raise BrokerUnreachable(
                f"The broker went away before the tasks could be counted: {error}"
            ) from error

    @property
    def has_nothing(self) -> bool:
        """Whether the broker says that no task of ours is in it; not all can say so."""
        try:
            with asking(self._app) as connection:
                ours = broker.lasting(connection.default_channel)
                if ours is None:
                    return False
                census = ours.census(self._plan.queue)
                return not (census.waiting or census.reserved or census.delayed)
        except self._errors:
            return False

    def _declare(self) -> None:
        try:
            with asking(self._app) as connection:
                self._queue(connection.default_channel).declare()
        except BrokerUnreachable:
            raise
        except self._errors as error:
            raise ProofFailed(
                f"The broker does not let us declare the queue {self._plan.queue}, so "
                f"nothing was tried: {error}"
            ) from error

    def _readers(self, connection: Any) -> int:
        if self._stock_redis:
            return 0  # kombu does not know.
        bound = self._queue(connection.default_channel)
        return int(bound.queue_declare(passive=True).consumer_count)

    def _take_all(self, connection: Any) -> Iterator[str]:
        channel = connection.default_channel
        self._wait_for_delayed(channel)
        bound = self._queue(channel)
        while message := bound.get(no_ack=True):
            yield str(message.headers.get("id"))
        if self._stock_redis:
            # What dead nodes had, and nobody was there to give back. kombu's client puts
            # the prefix before the names of some commands, and not of this one.
            key = f"{channel.global_keyprefix}{self._plan.unacked[0]}"
            for raw in channel.client.hvals(key):
                message, *_ = json.loads(raw)
                yield str(message["headers"].get("id"))

    def _wait_for_delayed(self, channel: Any) -> None:
        """What is to run again after a strike waits a moment beside the queue."""
        ours = broker.lasting(channel)
        give_up_at = time.monotonic() + LEAVE_SECONDS
        while ours and ours.census(self._plan.queue).delayed:
            if time.monotonic() > give_up_at:
                return
            time.sleep(0.1)

    def _delete(self, connection: Any) -> None:
        for queue in (self._queue, dead_letter_queue(self._plan.dead)):
            # An error closes a channel of RabbitMQ: each gets one of its own.
            with suppress(*connection.channel_errors), connection.channel() as channel:
                bound = queue(channel)
                bound.declare()  # So that this process knows what it is bound to.
                bound.delete()
        if self._stock_redis:
            connection.default_channel.client.delete(*self._plan.unacked)
