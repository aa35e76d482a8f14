"""The ladder of delays."""

from __future__ import annotations

import time
from typing import Any

import kombu
import pytest

from tests.waiting import eventually
from unstuck.rabbit import delays


def test_the_way_leads_to_one_queue() -> None:
    """The seconds in bits, and the name of the queue behind a word of ours."""
    exchange, key = delays.way("a.b", 5)

    assert exchange == "celery_delayed_27"
    assert key == "0." * 25 + "1.0.1.unstuck.a.b"


def test_what_is_longer_than_the_ladder_takes_the_longest() -> None:
    """It comes by after eight years, and waits again."""
    assert delays.way("q", 2**40)[1] == "1." * 28 + "unstuck.q"


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_messages_come_to_their_queue_alone(rabbitmq: Any, kind: str) -> None:
    """Also beside a queue whose name ends alike, and on a ladder of another kind."""
    names = ["b", "a.b", "unstuck.b", "odd.#"]
    with kombu.Connection(rabbitmq.url(rabbitmq.vhost())) as connection:
        channel = connection.default_channel
        for name in names:
            channel.queue_declare(name, durable=True, auto_delete=False)
        queues = [kombu.Queue(name) for name in [*names, "x" * 250]]

        can_wait = delays.prepare(connection, queues[:-1], kind)
        again = delays.prepare(connection, queues[:-1], "quorum")
        exchange, key = delays.way("b", 1)
        kombu.Producer(channel).publish("late", exchange=exchange, routing_key=key)

        assert can_wait == again == {"b", "a.b", "unstuck.b"}
        assert delays.prepare(connection, queues[-1:], kind) == frozenset()
        eventually(lambda: kombu.Queue("b")(channel).get(no_ack=True), 10)
        for name in names:
            assert channel.queue_declare(name, passive=True).message_count == 0


def test_what_was_due_while_its_queue_was_away_comes_later(rabbitmq: Any) -> None:
    """RabbitMQ keeps it and hands it on again, at intervals that our server has short."""
    with kombu.Connection(rabbitmq.url(rabbitmq.vhost())) as connection:
        channel = connection.default_channel
        queue = kombu.Queue("b", durable=True)(channel)
        queue.declare()
        delays.prepare(connection, [queue], "quorum")
        exchange, key = delays.way("b", 1)
        kombu.Producer(channel).publish("late", exchange=exchange, routing_key=key)
        queue.delete()
        time.sleep(2)

        queue.declare()
        delays.prepare(connection, [queue], "quorum")

        eventually(lambda: queue.get(no_ack=True), 30)
