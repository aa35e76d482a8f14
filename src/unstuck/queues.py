"""What waits on the broker, queue by queue; what it cannot tell is not passed as none."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery.app.routes import MapRoute, prepare
from kombu import Queue

from unstuck.core import broker
from unstuck.letters.queue import asking, name_for
from unstuck.rabbit import delays


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

    consumers: int | None = None
    """How many read from it."""

    untold: tuple[str, ...] = field(default=())
    """What the broker does not tell, by the names above."""


PAGE = 500

UNTOLD = ("oldest_seconds", "reserved", "delayed", "consumers")


def names_of(app: Any) -> list[str]:
    """The queues that a worker of this project consumes, those that its tasks are sent to
    by name, and that of the dead letters."""
    told = [*app.amqp.queues.consume_from, *_routed_to(app), name_for(app)]
    return list(dict.fromkeys(told))


def routes_in(routes: Any) -> Iterator[tuple[Any, Any]]:
    """The pairs of names and routes; what is decided by a function cannot be seen."""
    if isinstance(routes, Mapping):
        yield from routes.items()
    elif isinstance(routes, (list, tuple)):
        if len(routes) == 2 and isinstance(routes[0], str):
            yield routes[0], routes[1]
        else:
            for each in routes:
                yield from routes_in(each)


def queue_in(route: Any) -> str:
    """The queue that a route or the options of a task name; empty if none."""
    if isinstance(route, str):
        return route
    queue = route.get("queue") if isinstance(route, Mapping) else None
    name = queue.name if isinstance(queue, Queue) else queue
    return name if isinstance(name, str) else ""


def routed_to(routes: Any, task: str) -> str | None:
    """The queue that the routes name for a task: empty if they name none, ``None`` where
    it cannot be seen, because a function decides."""
    try:
        routers = prepare(routes)
    except (TypeError, ValueError):
        return None  # They are malformed; Celery says so whenever a task is sent.
    for router in routers:
        if not isinstance(router, MapRoute):
            return None
        if route := router(task):
            return queue_in(route)
    return ""


def queue_of(app: Any, task: Any) -> str | None:
    """The queue that a task is sent to if its call does not say: ``None`` where it cannot
    be seen, empty for the default one."""
    own = queue_in({"queue": getattr(task, "queue", None)})
    return own or routed_to(app.conf.task_routes, task.name)


def count(
    app: Any, names: Iterable[str], *, within: float = math.inf
) -> list[QueueFacts]:
    """Count these queues; those that are left after so many seconds are left out.

    Raises ``BrokerUnreachable`` when the broker cannot be asked.
    """
    give_up_at = time.monotonic() + within
    counted = []
    with asking(app) as connection:
        for name in names:
            if time.monotonic() > give_up_at:
                break
            counted.append(_count(connection, name))
    return counted


def count_delayed(connection: Any) -> int:
    """How many messages wait in the delay queues of a RabbitMQ, for all who use them."""
    numbers = (_ask(connection, name)[0] for name in delays.queue_names())
    return sum(number or 0 for number in numbers)


def contents(channel: Any, name: str) -> Iterator[bytes]:
    """The messages of a queue of kombu's own transport for Redis, the next one first.

    Nothing is taken. What is sent meanwhile comes at the end, what is taken may be missed.
    """
    for step in channel.priority_steps:
        # kombu's client adds the prefix itself to some commands, and not to this one.
        key = channel.global_keyprefix + channel._q_for_pri(name, step)
        at = -1
        while found := channel.client.lrange(key, at - PAGE + 1, at):
            # Publishers push on the left: the oldest is on the right.
            yield from reversed(found)
            at -= PAGE


def _routed_to(app: Any) -> Iterator[str]:
    routes = [route for _, route in routes_in(app.conf.task_routes)]
    options = [{"queue": getattr(task, "queue", None)} for task in app.tasks.values()]
    yield from filter(None, map(queue_in, [*routes, *options]))


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
            consumers=_ask(connection, name)[1] or 0,
        )
    waiting, consumers = _ask(connection, name)
    if connection.transport.driver_type == "amqp":
        untold = UNTOLD[:-1]
        return QueueFacts(
            name=name, waiting=waiting, consumers=consumers, untold=untold
        )
    if connection.transport.driver_type == "redis":
        waiting = waiting or 0  # An empty list is not there.
    return QueueFacts(name=name, waiting=waiting, untold=UNTOLD)


def _ask(connection: Any, name: str) -> tuple[int, int] | tuple[None, None]:
    """The length of a queue and who reads it; nothing of one that does not exist."""
    # An error closes a channel of RabbitMQ: each question gets one of its own.
    with connection.channel() as channel:
        try:
            declared = channel.queue_declare(name, passive=True)
        except connection.channel_errors:
            return None, None
        return int(declared.message_count), int(declared.consumer_count)
