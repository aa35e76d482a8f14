"""Waiting on the broker: a message whose time has not come is in no worker's memory.

kombu's ladder of queues, one for each bit of a delay in seconds, passes a message on from
one to the next and at last to an exchange. We bind the queues to it themselves, by a
key that no other one matches: so it works whatever exchange a queue has of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kombu
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE as EXIT,
)
from kombu.transport.native_delayed_delivery import (
    MAX_LEVEL,
    MAX_NUMBER_OF_BITS_TO_USE,
    calculate_routing_key,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from unstuck.rabbit import server

ENTRY = level_name(MAX_LEVEL)
LONGEST = 2**MAX_NUMBER_OF_BITS_TO_USE - 1
"""Seconds, above eight years; who has to wait for longer comes by once and waits again."""

KEY_BYTES = 255
"""What AMQP allows a routing key."""

ANY_DELAY = "*." * MAX_NUMBER_OF_BITS_TO_USE
WILDCARDS = frozenset("*#")


def prepare(
    connection: Any, queues: Iterable[kombu.Queue], queue_type: str
) -> frozenset[str]:
    """Make the ladder and bind these queues to it; the names of those that can use it.

    The queues must be there. Raises what the broker has against it.
    """
    names = [queue.name for queue in queues if _has_key(queue.name)]
    _make_ladder(connection, queue_type)
    with connection.channel() as channel:
        for name in names:
            channel.queue_bind(name, EXIT, f"{ANY_DELAY}{_tail(name)}")
    return frozenset(names)


def way(queue: str, seconds: int) -> tuple[str, str]:
    """The exchange and the routing key that lead to a queue after so many seconds."""
    return ENTRY, calculate_routing_key(min(seconds, LONGEST), _tail(queue))


def queue_names() -> list[str]:
    """The queues of the ladder, of the longest delay first."""
    return [level_name(level) for level in range(MAX_LEVEL, -1, -1)]


def _make_ladder(connection: Any, queue_type: str) -> None:
    try:
        declare_native_delayed_delivery_exchanges_and_queues(connection, queue_type)
    except connection.channel_errors as error:
        if server.code_of(error) != server.MISMATCH:
            raise
        # It is there, of another kind, and does as well.
        other = "classic" if queue_type == "quorum" else "quorum"
        declare_native_delayed_delivery_exchanges_and_queues(connection, other)


def _tail(queue: str) -> str:
    return f"unstuck.{queue}"


def _has_key(queue: str) -> bool:
    length = len((ANY_DELAY + _tail(queue)).encode())
    return length <= KEY_BYTES and WILDCARDS.isdisjoint(queue)
