"""What kombu's channels promise: the same cases on ``memory``, Redis lists and ours.

Where they differ by design, the test says what each of them does.
"""

from __future__ import annotations

import inspect
import os
import socket
import threading
import time
from typing import Any

import kombu
import pytest
from kombu.exceptions import ChannelError
from kombu.pidbox import Mailbox
from kombu.simple import SimpleQueue

from tests.contract.brokers import (
    Broker,
    Inbox,
    declared,
    new_queue,
    publish,
    waiting,
)
from tests.waiting import eventually

IS_5_7 = "batch" in dir(kombu.Producer)


# Queues.


def test_a_declared_queue_is_there(broker: Broker) -> None:
    """It has a name, and nothing in it."""
    connection, queue = broker.connect(), new_queue()

    answer = connection.default_channel.queue_declare(queue.name)

    assert (answer.queue, answer.message_count, answer.consumer_count) == (
        queue.name,
        0,
        0,
    )


def test_a_queue_without_a_name_gets_one(broker: Broker) -> None:
    """As AMQP has it."""
    first, second = (
        broker.connect().default_channel.queue_declare("").queue for _ in range(2)
    )

    assert first
    assert first != second


def test_a_passive_declaration_of_what_is_not_there_fails(broker: Broker) -> None:
    """With the error that AMQP has for it, and it does not come to be by it."""
    channel, queue = broker.connect().default_channel, new_queue()

    for _ in range(2):
        with pytest.raises(ChannelError, match="NOT_FOUND"):
            channel.queue_declare(queue.name, passive=True)


def test_an_empty_queue_is_there(broker: Broker) -> None:
    """A list that is empty is none, so kombu's own transport cannot know."""
    connection, queue = broker.connect(), new_queue()
    queue(connection.default_channel).declare()

    def is_there() -> bool:
        try:
            return bool(declared(connection, queue))
        except ChannelError:
            return False

    assert is_there() is broker.says(memory=True, redis=False, streams=True)


def test_a_passive_declaration_counts_messages_and_consumers(broker: Broker) -> None:
    """What is in hand does not wait; only ours knows who consumes."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(5))
    inbox = Inbox(broker.connect(), queue, prefetch=2)
    inbox.wait_for(2)

    answer = declared(connection, queue)

    assert answer.message_count == 3
    assert answer.consumer_count == broker.says(memory=0, redis=0, streams=1)


def test_a_consumer_that_has_gone_is_not_counted(streams: Broker) -> None:
    """Neither one that has cancelled, nor one that has closed, nor one that polls."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, *range(3))
    inbox = Inbox(streams.connect(), queue)
    inbox.wait_for(3)
    for message in inbox.messages:
        message.ack()
    inbox.cancel()

    eventually(lambda: declared(connection, queue).consumer_count == 0)

    publish(connection, queue, 1)
    assert streams.connect().default_channel.basic_get(queue.name, no_ack=True)
    assert declared(connection, queue).consumer_count == 0


def test_a_deleted_queue_has_gone_with_its_messages(broker: Broker) -> None:
    """And with its binding."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, 1, 2)

    queue(connection.default_channel).delete()

    with pytest.raises(ChannelError):
        declared(connection, queue)
    assert broker.connect().default_channel.basic_get(queue.name) is None


def test_a_queue_in_use_is_not_deleted_if_unused(streams: Broker) -> None:
    """``if_unused`` and ``if_empty`` are heeded; kombu's own know of no consumers."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, 1)
    channel = connection.default_channel
    channel.queue_delete(queue.name, if_empty=True)
    assert waiting(connection, queue) == 1
    inbox = Inbox(streams.connect(), queue)
    inbox.wait_for(1)
    inbox.messages[0].ack()

    channel.queue_delete(queue.name, if_unused=True)

    assert declared(connection, queue)


def test_a_purge_takes_what_waits_and_nothing_else(broker: Broker) -> None:
    """It says how many there were; what is in hand stays there."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(6))
    inbox = Inbox(broker.connect(), queue, prefetch=2)
    inbox.wait_for(2)

    purged = queue(connection.default_channel).purge()

    assert purged == 4
    for message in inbox.messages:
        message.ack()
    inbox.drain(0.2)
    assert inbox.bodies == [0, 1]
    assert queue(connection.default_channel).purge() == 0


def test_a_queue_that_expires_goes_when_nobody_uses_it(redis_broker: Broker) -> None:
    """``Queue(expires=...)``, in seconds."""
    if redis_broker.name == "redis" and not IS_5_7:
        pytest.skip("kombu 5.6 forgets on Redis lists that a queue expires")
    connection, queue = redis_broker.connect(), new_queue(expires=0.4)
    publish(connection, queue, 1)
    with redis_broker.client() as client:
        assert client.keys(f"*{queue.name}*")

    eventually(lambda: _messages_of(redis_broker, queue) == 0, 3)


def test_a_queue_that_expires_stays_while_somebody_consumes(streams: Broker) -> None:
    """What is in hand, too."""
    connection, queue = streams.connect(), new_queue(expires=1.2)
    publish(connection, queue, 1)
    inbox = Inbox(streams.connect(), queue, prefetch=1)
    inbox.wait_for(1)
    publish(connection, queue, 2)

    inbox.drain(1.5)
    inbox.messages[0].ack()

    assert inbox.wait_for(2) == [1, 2]


def _messages_of(broker: Broker, queue: kombu.Queue) -> int:
    with broker.client() as client:
        streams = client.keys(f"unstuck:queue:{queue.name}:*")
        return int(client.llen(queue.name)) + len(streams)


# Routing.


def test_a_direct_exchange_takes_the_queue_of_the_same_key(broker: Broker) -> None:
    """And no other."""
    connection = broker.connect()
    exchange = kombu.Exchange("direct", "direct")
    left, right = (
        kombu.Queue(f"{new_queue().name}-{key}", exchange, routing_key=key)
        for key in ("left", "right")
    )
    for queue in (left, right):
        queue(connection.default_channel).declare()

    publish(connection, right, "r")

    assert Inbox(broker.connect(), left, right).wait_for(1) == ["r"]
    assert waiting_or_none(connection, left) == 0


def test_a_topic_exchange_takes_the_queues_whose_pattern_fits(broker: Broker) -> None:
    """``*`` is one word, ``#`` any number."""
    connection = broker.connect()
    name = new_queue().name
    exchange = kombu.Exchange(f"topic-{name}", "topic")
    one, any_number, other = (
        kombu.Queue(f"{name}-{number}", exchange, routing_key=pattern)
        for number, pattern in enumerate(("a.*", "a.#", "b.#"))
    )
    for queue in (one, any_number, other):
        queue(connection.default_channel).declare()
    with connection.Producer(exchange=exchange, serializer="json") as producer:
        for key in ("a.b", "a.b.c"):
            producer.publish(key, routing_key=key)

    # kombu 5.6 takes "*" for any number of words.
    assert waiting(connection, one) == (1 if IS_5_7 else 2)
    assert Inbox(broker.connect(), any_number).wait_for(2) == ["a.b", "a.b.c"]
    assert waiting_or_none(connection, other) == 0


def test_a_fanout_exchange_reaches_all_who_listen(broker: Broker) -> None:
    """Each once."""
    exchange = kombu.Exchange(f"fanout-{new_queue().name}", "fanout")
    inboxes = [
        Inbox(
            broker.connect(),
            kombu.Queue(f"{new_queue().name}", exchange, auto_delete=True),
            no_ack=True,
        )
        for _ in range(2)
    ]
    for inbox in inboxes:
        inbox.drain(0.2)
    connection = broker.connect()
    with connection.Producer(exchange=exchange, serializer="json") as producer:
        exchange(connection.default_channel).declare()
        producer.publish("all")

    for inbox in inboxes:
        inbox.wait_for(1)
        inbox.drain(0.1)
        assert inbox.bodies == ["all"]


def test_a_message_may_go_to_a_queue_by_its_name(broker: Broker) -> None:
    """The exchange without a name."""
    connection, queue = broker.connect(), new_queue()
    queue(connection.default_channel).declare()
    with connection.Producer(serializer="json") as producer:
        producer.publish("by name", exchange="", routing_key=queue.name)

    assert Inbox(broker.connect(), queue).wait_for(1) == ["by name"]


def waiting_or_none(connection: kombu.Connection, queue: kombu.Queue) -> int:
    """How many wait; a queue that is not there has none."""
    try:
        return waiting(connection, queue)
    except ChannelError:
        return 0


# Consuming.


def test_messages_come_in_order_with_what_was_sent(broker: Broker) -> None:
    """Bodies, headers and properties, and whether it came before."""
    connection, queue = broker.connect(), new_queue()
    publish(
        connection,
        queue,
        *range(20),
        headers={"h": "é"},
        correlation_id="c",
        reply_to="r",
    )

    inbox = Inbox(broker.connect(), queue)

    assert inbox.wait_for(20) == list(range(20))
    message = inbox.messages[0]
    assert message.headers["h"] == "é"
    assert message.properties["correlation_id"] == "c"
    assert message.properties["reply_to"] == "r"
    assert message.delivery_info["routing_key"] == queue.routing_key
    assert message.delivery_info["exchange"] == queue.exchange.name
    assert not message.delivery_info.get("redelivered")
    assert message.content_type == "application/json"


def test_binary_bodies_come_as_they_are(broker: Broker) -> None:
    """All bytes, and none at all."""
    connection, queue = broker.connect(), new_queue()
    bodies = [bytes(range(256)), b"", "ü".encode()]
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(
                body,
                routing_key=queue.routing_key,
                exchange=queue.exchange,
                declare=[queue],
                content_type="application/data",
                content_encoding="binary",
            )

    inbox = Inbox(broker.connect(), queue)
    inbox.wait_for(3)

    assert [message.body or b"" for message in inbox.messages] == bodies


def test_the_most_urgent_come_first(broker: Broker) -> None:
    """On Redis 0 is the most urgent, in steps; ``memory`` knows no priorities."""
    connection, queue = broker.connect(), new_queue()
    for priority in (9, 6, 3, 0, 4):
        publish(connection, queue, priority, priority=priority)

    came = Inbox(broker.connect(), queue).wait_for(5)

    sent, sorted_ = [9, 6, 3, 0, 4], [0, 3, 4, 6, 9]
    assert came == broker.says(memory=sent, redis=sorted_, streams=sorted_)


def test_steps_of_priority_can_be_chosen(redis_broker: Broker) -> None:
    """``priority_steps``, the same for all who use the queue."""
    steps = {"priority_steps": list(range(10))}
    connection, queue = redis_broker.connect(**steps), new_queue()
    for priority in (5, 4, 2, 1):
        publish(connection, queue, priority, priority=priority)

    inbox = Inbox(redis_broker.connect(**steps), queue)

    assert inbox.wait_for(4) == [1, 2, 4, 5]


def test_what_is_acknowledged_does_not_come_again(broker: Broker) -> None:
    """Nor does what is rejected for good."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(4))
    first = broker.connect()
    inbox = Inbox(first, queue)
    inbox.wait_for(4)
    for message in inbox.messages[:2]:
        message.ack()
    for message in inbox.messages[2:]:
        message.reject()
    first.release()

    second = Inbox(broker.connect(), queue)
    second.drain(0.3)

    assert second.bodies == []
    assert waiting_or_none(connection, queue) == 0


def test_what_is_requeued_comes_again_and_says_so(broker: Broker) -> None:
    """``memory`` does not say so."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, "again")
    inbox = Inbox(broker.connect(), queue)
    inbox.wait_for(1)

    inbox.messages[0].requeue()
    inbox.wait_for(2)

    assert inbox.bodies == ["again", "again"]
    flag = bool(inbox.messages[1].delivery_info.get("redelivered"))
    assert flag is broker.says(memory=False, redis=True, streams=True)
    inbox.messages[1].ack()
    inbox.drain(0.1)
    assert len(inbox.messages) == 2


def test_requeued_by_hand_is_no_loss(streams: Broker) -> None:
    """The number of losses does not grow by it."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, "again")
    inbox = Inbox(streams.connect(), queue)
    for times in range(1, 4):
        inbox.wait_for(times)
        inbox.messages[-1].requeue()
    inbox.wait_for(4)

    assert [m.headers.get("x-delivery-count", 0) for m in inbox.messages] == [0] * 4


def test_what_is_requeued_is_served_first(redis_broker: Broker) -> None:
    """It was at the head before."""
    connection, queue = redis_broker.connect(), new_queue()
    publish(connection, queue, 1, 2, 3)
    inbox = Inbox(redis_broker.connect(), queue, prefetch=1)
    inbox.wait_for(1)
    inbox.messages[0].requeue()

    eventually(lambda: waiting(connection, queue) == 3)
    inbox.wait_for(2)
    for number in (2, 3):
        inbox.messages[-1].ack()
        inbox.wait_for(number + 1)

    # What kombu calls "leftmost" is the tail of a queue that is read from the right.
    last, first = [1, 2, 3, 1], [1, 1, 2, 3]
    assert inbox.bodies == redis_broker.says(memory=[], redis=last, streams=first)


def test_recover_gives_back_all_that_is_in_hand(broker: Broker) -> None:
    """Each once."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(5))
    inbox = Inbox(broker.connect(), queue)
    inbox.wait_for(5)
    inbox.messages[0].ack()

    inbox.consumer.recover(requeue=True)
    inbox.wait_for(9)

    assert sorted(inbox.bodies[5:]) == [1, 2, 3, 4]
    assert inbox.in_hand == 4


@pytest.mark.parametrize("prefetch", [1, 4])
def test_no_more_is_in_hand_than_was_asked_for(broker: Broker, prefetch: int) -> None:
    """Over several queues, steps of priority, and by whatever way they come."""
    connection = broker.connect()
    queues = [new_queue() for _ in range(3)]
    bounds: list[int] = []
    inbox = Inbox(
        broker.connect(),
        *queues,
        prefetch=prefetch,
        on_message=lambda _: bounds.append(inbox.in_hand),
    )
    inbox.drain(0.05)  # ours waits at the server now
    for number in range(24):
        publish(connection, queues[number % 3], number, priority=number % 10)

    done = 0
    while done < 24:
        inbox.wait_for(min(24, done + prefetch))
        assert _reserved(broker, queues) <= prefetch
        for message in inbox.messages[done:]:
            message.ack()
            done += 1

    assert max(bounds) <= prefetch
    assert sorted(inbox.bodies) == list(range(24))


def _reserved(broker: Broker, queues: list[kombu.Queue]) -> int:
    """How many messages the server of ours says are in hand."""
    if broker.name != "streams":
        return 0
    found = 0
    with broker.client() as client:
        for queue in queues:
            for stream in client.keys(f"unstuck:queue:{queue.name}:*"):
                found += sum(group["pending"] for group in client.xinfo_groups(stream))
    return found


def test_a_bound_may_grow_and_shrink(broker: Broker) -> None:
    """``basic_qos`` while messages are in hand."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(10))
    inbox = Inbox(broker.connect(), queue, prefetch=2)
    inbox.wait_for(2)

    inbox.consumer.qos(prefetch_count=5)
    inbox.wait_for(5)
    inbox.drain(0.1)
    assert len(inbox.messages) == 5
    inbox.consumer.qos(prefetch_count=1)
    for message in inbox.messages[:4]:
        message.ack()
    inbox.drain(0.2)
    assert len(inbox.messages) == 5
    inbox.messages[4].ack()

    assert inbox.wait_for(6) == list(range(6))


def test_without_acknowledgements_nothing_comes_back(broker: Broker) -> None:
    """``no_ack``: taken is done, also for messages that waited."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(5))
    consuming = broker.connect()
    inbox = Inbox(consuming, queue, no_ack=True)
    inbox.wait_for(5)
    publish(connection, queue, 5)
    inbox.wait_for(6)

    consuming.release()

    second = Inbox(broker.connect(), queue)
    second.drain(0.3)
    assert second.bodies == []


def test_without_acknowledgements_each_is_an_event(broker: Broker) -> None:
    """Who collects so many answers, as kombu's mailbox does, drains as often."""
    consuming, publishing, queue = broker.connect(), broker.connect(), new_queue()
    inbox = Inbox(consuming, queue, no_ack=True)
    publish(publishing, queue, 1, 2, 3)

    for count in (1, 2, 3):
        consuming.drain_events(timeout=5)
        assert len(inbox.messages) == count


def test_several_queues_get_their_turn(broker: Broker) -> None:
    """A queue that is full does not starve another one."""
    connection, busy, quiet = broker.connect(), new_queue(), new_queue()
    publish(connection, busy, *range(50))
    publish(connection, quiet, "quiet")
    inbox = Inbox(broker.connect(), busy, quiet, prefetch=1, on_message=_ack)

    inbox.wait_for(10)

    assert "quiet" in inbox.bodies[:10]


def _ack(message: Any) -> None:
    message.ack()


def test_events_are_waited_for_as_long_as_told(broker: Broker) -> None:
    """``drain_events(timeout)`` raises what sockets raise."""
    connection, queue = broker.connect(), new_queue()
    inbox = Inbox(connection, queue)
    start = time.monotonic()

    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.3)

    assert 0.25 <= time.monotonic() - start < 10
    assert inbox.messages == []


def test_a_message_ends_the_wait(broker: Broker) -> None:
    """One that comes while somebody waits; ``memory`` looks but once a second."""
    connection, queue = broker.connect(), new_queue()
    inbox = Inbox(broker.connect(), queue)
    inbox.drain(0.05)
    timer = threading.Timer(0.3, publish, (connection, queue, 1))
    timer.start()
    start = time.monotonic()

    inbox.connection.drain_events(timeout=5)

    timer.join()
    assert inbox.bodies == [1]
    most = broker.says(memory=1.6, redis=0.9, streams=0.9)
    assert time.monotonic() - start < most


def test_a_consumer_that_cancels_gets_nothing_more(broker: Broker) -> None:
    """What it has in hand stays there; the rest waits for others."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, 1)
    consuming = broker.connect()
    inbox, other = Inbox(consuming, queue), Inbox(consuming, new_queue())
    inbox.wait_for(1)

    inbox.cancel()
    publish(connection, queue, 2)
    other.drain(0.2)

    assert inbox.bodies == [1]
    assert waiting(connection, queue) == 1
    inbox.messages[0].ack()
    assert Inbox(broker.connect(), queue).wait_for(1) == [2]


def test_a_consumer_may_cancel_while_a_message_comes(broker: Broker) -> None:
    """From within its own callback, and consume again."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, 1, 2)

    def cancel_and_ack(message: Any) -> None:
        inbox.cancel()
        message.ack()

    inbox = Inbox(broker.connect(), queue, prefetch=1, on_message=cancel_and_ack)
    inbox.wait_for(1)
    with pytest.raises(socket.timeout):
        inbox.connection.drain_events(timeout=0.2)
    assert inbox.bodies == [1]

    inbox.consumer.consume()

    assert inbox.wait_for(2) == [1, 2]


def test_what_a_callback_raises_reaches_who_drains(broker: Broker) -> None:
    """And what came along with it is not lost."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(5))
    consuming = broker.connect()

    def refuse(_: Any) -> None:
        raise ZeroDivisionError

    inbox = Inbox(consuming, queue, on_message=refuse)
    with pytest.raises(ZeroDivisionError):
        inbox.wait_for(1)
    consuming.release()

    rest = Inbox(broker.connect(), queue)
    # `memory` gives nothing back: the one whose callback has raised is gone.
    number = broker.says(memory=4, redis=5, streams=5)
    assert sorted(rest.wait_for(number)) == list(range(5 - number, 5))


def test_a_channel_that_closes_gives_back_what_is_in_hand(broker: Broker) -> None:
    """``memory`` throws it away."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, *range(4))
    inbox = Inbox(broker.connect(), queue)
    inbox.wait_for(4)
    inbox.messages[0].ack()

    inbox.channel.close()

    left = broker.says(memory=0, redis=3, streams=3)
    assert waiting_or_none(connection, queue) == left
    if left:
        other = Inbox(broker.connect(), queue)
        assert sorted(other.wait_for(3)) == [1, 2, 3]
        assert all(m.delivery_info["redelivered"] for m in other.messages)


# Without a consumer.


def test_one_message_can_be_had_at_a_time(broker: Broker) -> None:
    """``basic_get``; ``None`` when there is none."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, 1, 2)
    channel = broker.connect().channel()

    first, second = (channel.basic_get(queue.name) for _ in range(2))

    assert [first.payload, second.payload] == [1, 2]
    assert channel.basic_get(queue.name) is None
    first.ack()
    second.requeue()
    eventually(lambda: waiting(connection, queue) == 1)
    again = eventually(lambda: channel.basic_get(queue.name))
    assert again.payload == 2
    again.ack()


def test_what_was_got_comes_back_when_the_channel_closes(broker: Broker) -> None:
    """Unless nobody need acknowledge it; ``memory`` throws it away."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, 1, 2)
    channel = broker.connect().channel()
    assert channel.basic_get(queue.name, no_ack=True).payload == 1
    assert channel.basic_get(queue.name).payload == 2

    channel.close()

    left = broker.says(memory=0, redis=1, streams=1)
    assert waiting_or_none(connection, queue) == left


def test_a_simple_queue_is_simple(broker: Broker) -> None:
    """kombu's ``SimpleQueue``: put, get, wait, size, clear."""
    queue = SimpleQueue(broker.connect(), new_queue().name)
    queue.put({"n": 1})
    queue.put({"n": 2})
    assert queue.qsize() == 2

    message = queue.get(timeout=3)

    assert message.payload == {"n": 1}
    message.ack()
    assert queue.get(timeout=3).payload == {"n": 2}
    with pytest.raises(queue.Empty):
        queue.get(timeout=0.1)
    queue.put({"n": 3})
    # What `memory` and Redis lists have read ahead is not in the queue any more.
    assert queue.clear() in (0, 1)
    queue.close()


# Connections.


def test_a_connection_that_was_closed_can_be_used_again(broker: Broker) -> None:
    """kombu connects anew, and what waited is still there."""
    connection, queue = broker.connect(), new_queue()
    publish(connection, queue, 1)
    connection.release()

    publish(connection, queue, 2)

    inbox = Inbox(broker.connect(), queue)
    # `memory` forgets what a connection that closes has had to do with.
    inbox.wait_for(1)
    inbox.drain(0.1)
    assert inbox.bodies[-1] == 2


def test_a_clone_is_a_connection_of_its_own(broker: Broker) -> None:
    """With the same address and options."""
    connection, queue = broker.connect(), new_queue()
    connection.connect()

    clone = connection.clone()

    assert clone.as_uri() == connection.as_uri()
    assert clone.transport_options == connection.transport_options
    publish(clone, queue, 1)
    clone.release()
    assert connection.connected
    assert waiting(connection, queue) == 1


def test_passwords_are_not_shown(redis_broker: Broker) -> None:
    """Nor does it take a server to say so."""
    scheme = redis_broker.url().partition("://")[0]
    url = f"{scheme}://user:secret@localhost:6379/3"
    connection = kombu.Connection(url)

    assert "secret" not in connection.as_uri()
    assert "localhost:6379/3" in connection.as_uri()
    assert "secret" in connection.as_uri(include_password=True)
    assert "secret" not in repr(connection)


def test_ensure_connects_and_gives_up_in_time(redis_broker: Broker) -> None:
    """Nobody listens there."""
    url = redis_broker.url().rpartition("127.0.0.1")[0] + "127.0.0.1:1/0"
    connection = redis_broker.connect(url=url)

    with pytest.raises(kombu.exceptions.OperationalError):
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)


def test_lost_connections_are_made_anew(redis_broker: Broker) -> None:
    """Of producers and of consumers; what is in hand stays ours, on Redis lists too."""
    connection, queue = redis_broker.connect(), new_queue()
    publish(connection, queue, 1)
    consuming = redis_broker.connect()
    inbox = Inbox(consuming, queue)
    inbox.wait_for(1)

    with redis_broker.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    with connection.Producer(serializer="json") as producer:
        send = connection.ensure(producer, producer.publish, max_retries=3)
        send(2, exchange=queue.exchange, routing_key=queue.routing_key)

    def comes() -> bool:
        try:
            inbox.drain(0.1)
        except consuming.connection_errors:
            return False
        return len(inbox.messages) == 2

    eventually(comes)
    for message in inbox.messages:
        message.ack()


def test_databases_do_not_see_each_other(redis_broker: Broker) -> None:
    """Each is a virtual host of its own."""
    queue = new_queue()
    for db in (0, 3, 15):
        publish(redis_broker.connect(db), queue, db)

    for db in (15, 0, 3):
        inbox = Inbox(redis_broker.connect(db), queue)
        inbox.wait_for(1)
        inbox.drain(0.1)
        assert inbox.bodies == [db]


def test_prefixes_do_not_see_each_other(redis_broker: Broker) -> None:
    """Two projects on one database; each key has the prefix of its own."""
    queue = new_queue()
    for prefix in ("one:", "two:"):
        connection = redis_broker.connect(global_keyprefix=prefix)
        publish(connection, queue, prefix)
        publish(connection, queue, f"{prefix}urgent", priority=9)

    with redis_broker.client() as client:
        assert all(key.startswith((b"one:", b"two:")) for key in client.keys("*"))
    for prefix in ("two:", "one:"):
        connection = redis_broker.connect(global_keyprefix=prefix)
        assert queue(connection.default_channel).queue_declare().message_count == 2
        inbox = Inbox(connection, queue, on_message=_ack)
        assert inbox.wait_for(2) == [prefix, f"{prefix}urgent"]
        inbox.drain(0.2)
        assert len(inbox.messages) == 2
        connection.release()


def test_threads_may_publish_at_once(broker: Broker) -> None:
    """Each by a channel of its own, on connections of a pool."""
    connection, queue = broker.connect(), new_queue()
    queue(connection.default_channel).declare()
    pool = connection.Pool(limit=4)

    def send(number: int) -> None:
        for _ in range(10):
            with pool.acquire(block=True, timeout=5) as each:
                publish(each, queue, number)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    inbox = Inbox(broker.connect(), queue)
    came = inbox.wait_for(60)
    assert sorted(came) == sorted(n for n in range(6) for _ in range(10))
    pool.force_close_all()


def test_threads_may_publish_by_one_channel(redis_broker: Broker) -> None:
    """Each command takes a connection of the pool; no answers get mixed up."""
    connection, queue = redis_broker.connect(), new_queue()
    publish(connection, queue, "first")
    channel = connection.default_channel

    def send(number: int) -> None:
        producer = kombu.Producer(channel, serializer="json")
        for _ in range(20):
            producer.publish(
                number, exchange=queue.exchange, routing_key=queue.routing_key
            )

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(Inbox(redis_broker.connect(), queue).wait_for(81)) == 81


def test_a_forked_process_may_publish(redis_broker: Broker) -> None:
    """By the connection of its parent, and neither disturbs the other."""
    connection, queue = redis_broker.connect(), new_queue()
    publish(connection, queue, "before")
    inbox = Inbox(redis_broker.connect(), queue)
    inbox.wait_for(1)

    child = _fork(lambda: publish(connection, queue, *["child"] * 20))
    publish(connection, queue, *["parent"] * 20)
    assert os.waitpid(child, 0)[1] == 0

    came = inbox.wait_for(41)
    assert sorted(came) == sorted(["before", *["child"] * 20, *["parent"] * 20])


def _fork(work: Any) -> int:
    """Do ``work`` in a child that leaves without cleaning up; its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


@pytest.mark.skipif(not IS_5_7, reason="kombu 5.6 has no Producer.batch")
@pytest.mark.parametrize("prefix", ["", "p:"])
def test_a_batch_is_published_as_one(redis_broker: Broker, prefix: str) -> None:
    """kombu 5.7: in a pipeline, with priorities and what expires."""
    connection = redis_broker.connect(global_keyprefix=prefix)
    queue, short = new_queue(), new_queue(expires=0.5)
    for each in (queue, short):
        each(connection.default_channel).declare()
    with connection.Producer(serializer="json") as producer:
        assert producer.supports_batch_publish
        with producer.batch(max_size=10):
            for number in range(25):
                producer.publish(
                    number,
                    exchange=queue.exchange,
                    routing_key=queue.routing_key,
                    priority=9 if number < 5 else 0,
                )
            producer.publish(
                "short", exchange=short.exchange, routing_key=short.routing_key
            )

    connection = redis_broker.connect(global_keyprefix=prefix)
    came = Inbox(connection, queue).wait_for(25)
    assert came == [*range(5, 25), *range(5)]
    eventually(lambda: not waiting_or_none(connection, short), 3)


# Celery's remote control.


def test_remote_control_is_answered(broker: Broker) -> None:
    """kombu's mailbox: a broadcast, and the replies of all."""
    name = new_queue().name
    answering = broker.connect()
    mailbox = Mailbox(name, type="fanout", accept=["json"])
    replies: list[Any] = []
    stop = threading.Event()

    def answer() -> None:
        node = mailbox(answering).Node(
            "node@here", state=None, channel=answering.channel()
        )
        node.handler(lambda state, **kwargs: {"ok": kwargs})
        node.handlers["hello"] = lambda state, **kwargs: {"ok": kwargs}
        consumer = node.listen()
        ready.set()
        while not stop.is_set():
            try:
                answering.drain_events(timeout=0.05)
            except TimeoutError:
                continue
        consumer.cancel()

    ready = threading.Event()
    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert ready.wait(5)
        time.sleep(0.3)  # until it is subscribed
        asking = broker.connect()
        replies = mailbox(asking).multi_call("hello", {"a": 1}, timeout=1.5, limit=1)
    finally:
        stop.set()
        thread.join(5)

    assert replies == [{"node@here": {"ok": {"a": 1}}}]


def test_the_seams_of_kombu_are_where_we_use_them() -> None:
    """What the channel and the poller override exists under these names."""
    from kombu.transport import redis as kombu_redis

    channel, poller = kombu_redis.Channel, kombu_redis.MultiChannelPoller
    for name in ("_brpop_start", "_put", "_size", "_purge", "_has_queue", "_q_for_pri"):
        assert name in vars(channel), name
    for name in ("_register_BRPOP", "_register_LISTEN", "on_poll_start", "get"):
        assert name in vars(poller), name
    assert '"BRPOP"' in inspect.getsource(channel.__init__).replace("'", '"')
