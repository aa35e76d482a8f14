"""The transports that must agree, what a test does with them, and where they differ."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import kombu
import redis
from kombu import Connection, Consumer, Queue

import unstuck.app  # noqa: F401 - names our transport to kombu
from tests.services import Valkey
from tests.sites import STREAMS
from tests.waiting import eventually

T = TypeVar("T")

STEWARD = "unstuck-steward"
OPTIONS = {"streams": {"lease_seconds": 1}, "redis": {"polling_interval": 0.1}}
"""Short leases and short polls, so that a test need not wait for long."""

_numbers = itertools.count(1)


class Broker:
    """One transport on one server, and the connections that a test has made."""

    def __init__(self, name: str, server: Valkey | None = None) -> None:
        self.name = name
        self.server = server
        self._connections: list[Connection] = []

    def url(self, db: int = 0) -> str:
        """The address of database ``db``."""
        if self.server is None:
            return "memory://"
        return (STREAMS if self.name == "streams" else "") + self.server.url(db)

    def connect(
        self, db: int = 0, url: str | None = None, **options: Any
    ) -> Connection:
        """A new connection, closed with the test."""
        connection = Connection(
            self.url(db) if url is None else url,
            transport_options={**OPTIONS.get(self.name, {}), **options},
            connect_timeout=2,
        )
        self._connections.append(connection)
        return connection

    def client(self, db: int = 0) -> redis.Redis:
        """A client of the server itself, for the caller to close."""
        assert self.server is not None
        return self.server.client(db)

    def says(self, *, memory: T, redis: T, streams: T) -> T:
        """What is expected of this transport, where they differ by design."""
        return {"memory": memory, "redis": redis, "streams": streams}[self.name]

    def close(self) -> None:
        """Close all connections; nobody looks after them any more then."""
        for connection in self._connections:
            with contextlib.suppress(ConnectionError, redis.RedisError):
                connection.release()
        if self.name == "streams":
            eventually(no_steward, 6)


def no_steward() -> bool:
    """Whether no lease is kept by this process."""
    return all(thread.name != STEWARD for thread in threading.enumerate())


def new_queue(**options: Any) -> Queue:
    """A queue that no other test has used."""
    name = f"queue{next(_numbers)}"
    return Queue(name, kombu.Exchange(f"ex-{name}"), routing_key=name, **options)


def publish(connection: Connection, queue: Queue, *bodies: Any, **options: Any) -> None:
    """Send these to a queue, which is declared first."""
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(
                body,
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                declare=[queue],
                serializer="json",
                **options,
            )


class Inbox:
    """A consumer of some queues, and the messages that it has received."""

    def __init__(
        self,
        connection: Connection,
        *queues: Queue,
        prefetch: int = 0,
        no_ack: bool = False,
        on_message: Callable[[Any], object] = lambda message: None,
    ) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.messages: list[Any] = []
        self._on_message = on_message
        self.consumer = Consumer(
            self.channel,
            queues=list(queues),
            no_ack=no_ack,
            on_message=self._take,
            prefetch_count=prefetch or None,
        )
        self.consumer.consume()

    @property
    def bodies(self) -> list[Any]:
        """What has come, in order."""
        return [message.payload for message in self.messages]

    @property
    def in_hand(self) -> int:
        """How many messages are unacknowledged, as the channel counts."""
        qos = self.channel.qos
        return len(qos._delivered) - len(qos._dirty or ())

    def wait_for(self, number: int, seconds: float = 5) -> list[Any]:
        """The bodies of all, once so many messages have come."""

        def have_come() -> bool:
            self.drain(0.05)
            return len(self.messages) >= number

        eventually(have_come, seconds)
        return self.bodies

    def drain(self, seconds: float) -> None:
        """Take what comes, until nothing has come for so long."""
        with contextlib.suppress(socket.timeout):
            while True:
                self.connection.drain_events(timeout=seconds)

    def cancel(self) -> None:
        """Consume no more."""
        self.consumer.cancel()

    def _take(self, message: Any) -> None:
        self.messages.append(message)
        self._on_message(message)


def waiting(connection: Connection, queue: Queue) -> int:
    """How many messages wait in a queue."""
    return int(declared(connection, queue).message_count)


def declared(connection: Connection, queue: Queue) -> Any:
    """What the broker says of a queue that is there already."""
    channel = connection.default_channel
    return channel.queue_declare(queue.name, passive=True)


def headers_of(message: Any) -> Mapping[str, Any]:
    """The headers of a message that has come."""
    return dict(message.headers)
