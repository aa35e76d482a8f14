"""Looking at what waits in our transport, and taking one message out of its wait."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contract.brokers import Broker, Inbox, new_queue, publish, waiting
from unstuck.transport.lookup import WHOLE_AT_ONCE

LATER = 600


def delay(connection: Any, queue: Any, task_id: str, seconds: float = LATER) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=seconds)
    headers = {"id": task_id, "eta": eta.isoformat()}
    publish(connection, queue, task_id, headers=headers)


def soon() -> float:
    return time.monotonic() + 20


def test_what_is_due_first_is_listed_first(streams: Broker) -> None:
    """As many as are asked for, with the time and the message; nothing is taken."""
    connection, queue = streams.connect(), new_queue()
    for task_id, seconds in (("c", 900), ("a", 300), ("b", 600)):
        delay(connection, queue, task_id, seconds)
    channel = connection.default_channel

    found = list(channel.first_delayed(queue.name, 2))

    ids = [json.loads(one.content)["headers"]["id"] for one in found]
    assert ids == ["a", "b"]
    assert 250 < found[0].due_at - time.time() < 310
    assert channel.queues_with_delayed() == [queue.name]
    assert channel.census(queue.name).delayed == 3
    assert channel.count_delayed([queue.name, "no"]) == {queue.name: 3, "no": 0}


def test_all_queues_with_delayed_messages_are_listed(streams: Broker) -> None:
    """However many they are: those that are left out nobody would look through."""
    names = [f"q{number:04}" for number in range(1_500)]
    with streams.client() as client:
        client.zadd("unstuck:due", {name: at for at, name in enumerate(names)})

    assert streams.connect().default_channel.queues_with_delayed() == names


def test_all_are_listed_a_few_at_a_time(streams: Broker) -> None:
    """Each once, also those of one instant, more than are read at a time."""
    connection, queue = streams.connect(), new_queue()
    delay(connection, queue, "first", 300)
    eta = datetime.now(UTC) + timedelta(seconds=LATER)
    for number in range(2 * WHOLE_AT_ONCE + 5):
        headers = {"id": f"{number}", "eta": eta.isoformat()}
        publish(connection, queue, f"{number}", headers=headers)

    found = list(connection.default_channel.first_delayed(queue.name, 500))
    some = list(connection.default_channel.first_delayed(queue.name, 30))

    assert json.loads(found[0].content)["headers"]["id"] == "first"
    assert len({one.content for one in found}) == len(found) == 2 * WHOLE_AT_ONCE + 6
    assert [one.content for one in some] == [one.content for one in found[:30]]


def test_a_search_of_what_is_in_hand_is_bounded(streams: Broker) -> None:
    """It says whether that was all, of more than are read at a time."""
    connection, queue = streams.connect(node="w1#1.1"), new_queue()
    number = WHOLE_AT_ONCE + 5
    for each in range(number):
        publish(connection, queue, f"{each}", headers={"id": f"held-{each}"})
    Inbox(connection, queue, prefetch=number).wait_for(number)
    channel = streams.connect().default_channel
    last = json.dumps(f"held-{number - 1}")

    whole = channel.search(queue.name, last, 100, soon())
    capped = channel.search(queue.name, last, 10, soon())
    late = channel.search(queue.name, last, 100, time.monotonic())

    assert ([one.node for one in whole.found], whole.is_whole) == (["w1"], True)
    assert (list(capped.found), capped.is_whole) == ([], False)
    assert (list(late.found), late.is_whole) == ([], False)


@pytest.mark.parametrize("task_id", ["x", "a*b", "[a]?", "\\", 'say "é"'])
def test_one_is_found_by_its_id(streams: Broker, task_id: str) -> None:
    """Whatever the id is made of, among many."""
    connection, queue = streams.connect(), new_queue()
    for number in range(50):
        delay(connection, queue, f"other-{number}")
    delay(connection, queue, task_id)

    found, is_all = connection.default_channel.delayed_with(
        queue.name, json.dumps(task_id), soon()
    )

    assert is_all
    assert [json.loads(one.content)["headers"]["id"] for one in found] == [task_id]


def test_a_search_gives_up_in_time(streams: Broker) -> None:
    """And says so."""
    connection, queue = streams.connect(), new_queue()
    delay(connection, queue, "a")

    channel = connection.default_channel

    assert channel.delayed_with(queue.name, "a", time.monotonic()) == ([], False)


def test_one_is_taken_once(streams: Broker) -> None:
    """By whoever is first; what comes in its place can be read at once."""
    connection, queue = streams.connect(), new_queue()
    delay(connection, queue, "now")
    delay(connection, queue, "never")
    channel = connection.default_channel
    now, never = channel.first_delayed(queue.name, 2)

    assert channel.take_delayed(now, now.content)
    assert channel.take_delayed(never)
    assert not channel.take_delayed(now, now.content)
    assert not channel.take_delayed(never)

    assert channel.census(queue.name).delayed == 0
    assert Inbox(streams.connect(), queue).wait_for(1) == ["now"]


def test_a_search_tells_places_and_hands(streams: Broker) -> None:
    """What waits by its place, what a node has by its name."""
    connection, queue = streams.connect(node="w1#1.1"), new_queue()
    publish(connection, queue, "first", headers={"id": "in-hand"})
    inbox = Inbox(connection, queue, prefetch=1)
    inbox.wait_for(1)
    for number in range(5):
        publish(streams.connect(), queue, "more", headers={"id": f"waits-{number}"})
    channel = streams.connect().default_channel

    held = channel.search(queue.name, '"in-hand"', 100, soon())
    third = channel.search(queue.name, '"waits-2"', 100, soon())
    capped = channel.search(queue.name, '"waits-4"', 3, soon())

    assert [(one.place, one.node) for one in held.found] == [(None, "w1")]
    assert [(one.place, one.node) for one in third.found] == [(3, "")]
    assert (third.looked_at, third.is_whole) == (5, True)
    assert (list(capped.found), capped.looked_at, capped.is_whole) == ([], 3, False)
    assert waiting(connection, queue) == 5


def test_a_queue_that_is_not_there_has_nothing(streams: Broker) -> None:
    """No error either."""
    channel = streams.connect().default_channel

    assert channel.search("nowhere", "x", 10, soon()).is_whole
    assert list(channel.first_delayed("nowhere", 10)) == []
    assert channel.delayed_with("nowhere", "x", soon()) == ([], True)
