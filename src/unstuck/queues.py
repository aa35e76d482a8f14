"""What waits on the broker, queue by queue; what it cannot tell is not passed as none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unstuck.core import broker
from unstuck.letters.queue import asking, name_for


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """One queue; ``None`` is what this broker does not tell."""

    name: str
    waiting: int | None
    """Messages that no node has."""

    oldest_seconds: float | None = None
    """How long the first of them has waited."""

    reserved: Mapping[str, int] | None = None
    """How many messages each node has in hand."""

    delayed: int | None = None
    """Messages whose time has not come."""

    untold: tuple[str, ...] = field(default=())
    """What the broker does not tell, by the names above."""


UNTOLD = ("oldest_seconds", "reserved", "delayed")


def names_of(app: Any) -> list[str]:
    """The queues that a worker of this project consumes, and that of the dead letters."""
    return [*app.amqp.queues.consume_from, name_for(app)]


def count(app: Any, names: Iterable[str]) -> list[QueueFacts]:
    """Count these queues. Raises ``BrokerUnreachable`` when the broker cannot be asked."""
    with asking(app) as connection:
        return [_count(connection, name) for name in names]


def _count(connection: Any, name: str) -> QueueFacts:
    channel = broker.lasting(connection.default_channel)
    if channel:
        found = channel.census(name)
        return QueueFacts(
            name=name,
            waiting=found.waiting,
            oldest_seconds=found.oldest_seconds,
            reserved=found.reserved,
            delayed=found.delayed,
        )
    return QueueFacts(name=name, waiting=_length(connection, name), untold=UNTOLD)


def _length(connection: Any, name: str) -> int | None:
    """The length of a queue; ``None`` of one that does not exist."""
    # An error closes a channel of RabbitMQ: each question gets one of its own.
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(name, passive=True).message_count)
        except connection.channel_errors:
            return None
