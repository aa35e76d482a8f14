"""Which arguments a queue gets, and how those are found that it has."""

from __future__ import annotations

from typing import Any

import kombu
import pytest

from unstuck.rabbit.queues import (
    DEAD,
    SafeQueue,
    arguments_of,
    dead_letter_queue,
    differences,
    is_quorum,
)


@pytest.mark.parametrize(
    ("own", "added"),
    [
        ({}, True),
        ({"x-message-ttl": 5}, True),
        ({"x-max-length": 5}, False),
        ({"x-max-length-bytes": 5}, False),
        ({"x-max-length": 5, "x-overflow": "reject-publish"}, True),
        ({"x-overflow": "drop-head"}, False),
    ],
)
def test_drops_become_letters(own: dict[str, Any], added: bool) -> None:
    """At least once, where RabbitMQ can; never by refusing what it was told to drop."""
    ours = SafeQueue("q").ours(own)

    assert ours["x-queue-type"] == "quorum"
    assert ours["x-dead-letter-exchange"] == ""
    assert ours["x-dead-letter-routing-key"] == DEAD
    assert (ours.get("x-dead-letter-strategy") == "at-least-once") is added
    assert ("x-overflow" in ours) is added


def test_a_dead_letter_exchange_of_the_project_stays() -> None:
    """What it says of dead letters is not mixed with what we say."""
    ours = SafeQueue("q").ours({"x-dead-letter-exchange": "own"})

    assert set(ours) == {"x-queue-type", "x-delivery-limit"}


def test_a_queue_that_says_its_type_is_as_it_says() -> None:
    """Then stock Celery with the same settings can declare it, too."""
    assert SafeQueue("q").ours({"x-queue-type": "quorum"}) == {}


def test_a_copy_is_the_same_queue() -> None:
    """All that a queue says of itself is kept, also when it is bound."""
    queue = kombu.Queue("q", kombu.Exchange("e"), "key", message_ttl=5, alias="a")

    copy = SafeQueue.of(queue)

    assert type(copy) is SafeQueue
    assert copy.as_dict() == queue.as_dict()


def test_differences_are_named() -> None:
    """Only what differs, with both values."""
    wanted = {"x-queue-type": "quorum", "x-max-length": 5}

    assert differences(wanted, {"x-max-length": 5}) == {
        "x-queue-type": ("quorum", None)
    }
    assert differences(wanted, wanted) == {}


@pytest.fixture
def channel(rabbitmq: Any) -> Any:
    """A channel on an empty RabbitMQ."""
    with kombu.Connection(rabbitmq.url(rabbitmq.vhost())) as connection:
        yield connection.default_channel


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"x-queue-type": "classic"},
        {"x-queue-type": "quorum"},
        {"x-max-length": 7, "x-message-ttl": 60_000, "x-dead-letter-exchange": "dlx"},
        {"x-queue-type": "quorum", "x-delivery-limit": 3, "x-expires": 60_000},
    ],
)
def test_the_arguments_of_a_queue_are_found(
    channel: Any, arguments: dict[str, Any]
) -> None:
    """From what the broker says of declarations that differ; it stays as it is."""
    queue = SafeQueue("q", kombu.Exchange(""), routing_key="q", message_ttl=5)
    channel.queue_declare("q", durable=True, auto_delete=False, arguments=arguments)

    queue(channel).declare()
    found = arguments_of(channel, queue)

    assert found is not None
    assert {**found, "x-queue-type": None} == {**arguments, "x-queue-type": None}
    assert is_quorum(found) == is_quorum(arguments)
    channel.queue_declare("q", durable=True, auto_delete=False, arguments=arguments)


def test_a_queue_that_is_no_durable_one_is_not_understood(channel: Any) -> None:
    """Then it is nobody's fault, and taken for what needs more care."""
    channel.queue_declare("q", durable=False, auto_delete=False)
    queue = SafeQueue("q", kombu.Exchange(""), routing_key="q")

    queue(channel).declare()

    assert arguments_of(channel, queue) is None
    assert is_quorum(None)


@pytest.mark.parametrize("extra", [{"max_priority": 5}, {"auto_delete": True}])
def test_what_cannot_be_a_quorum_queue_is_declared_as_it_is(
    channel: Any, extra: dict[str, Any]
) -> None:
    """Priorities, and queues that come and go."""
    queue = SafeQueue("q", kombu.Exchange(""), routing_key="q", **extra)

    queue(channel).declare()

    found = arguments_of(channel, queue)
    assert not is_quorum(found)


def test_letters_have_no_limit(channel: Any) -> None:
    """The queue of letters drops nothing, on no version of RabbitMQ."""
    dead_letter_queue()(channel).declare()

    found = arguments_of(channel, dead_letter_queue())

    assert found == {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}
