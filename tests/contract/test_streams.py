"""What our transport does beyond kombu's channels: leases, losses, delays, the bridge."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import time
from datetime import UTC, datetime, timedelta
from multiprocessing import util
from typing import Any

import kombu
import pytest
import redis

from tests.contract.brokers import Broker, Inbox, new_queue, publish, waiting
from tests.contract.peer import peer
from tests.waiting import eventually
from unstuck.transport import scripts

LEASE = 1.0
SLACK = 1.0


# Leases.


def test_what_a_killed_process_had_comes_here(streams: Broker) -> None:
    """SIGKILL: within the lease and a second, and the message says that it was lost."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, *range(3))
    with peer(streams.url(), queue.name) as other:
        assert other.ask("take 3") == [0, 1, 2]
        inbox = Inbox(streams.connect(), queue)
        inbox.drain(0.1)
        os.kill(other.pid, signal.SIGKILL)
        killed_at = time.monotonic()

        inbox.wait_for(3)

    assert time.monotonic() - killed_at < LEASE + SLACK
    assert sorted(inbox.bodies) == [0, 1, 2]
    for message in inbox.messages:
        assert message.headers["x-delivery-count"] == 1
        assert message.delivery_info["redelivered"] is True
        assert message.delivery_info["routing_key"] == queue.routing_key


def test_losses_are_counted(streams: Broker) -> None:
    """Also over what was given back between them."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, "poison")

    for times in range(3):
        node = f"{queue.name}-{times}"
        victim = Inbox(streams.connect(node=node, lease_seconds=60), queue)
        victim.wait_for(1)
        assert victim.messages[0].headers.get("x-delivery-count", 0) == times
        victim.messages[0].requeue()
        victim.wait_for(2)
        victim.cancel()
        _reap(streams, node, queue)
        victim.connection.release()

    inbox = Inbox(streams.connect(), queue)
    inbox.wait_for(1)
    assert inbox.messages[0].headers["x-delivery-count"] == 3


def _reap(streams: Broker, node: str, queue: kombu.Queue) -> None:
    """Take over from a node, whether it lives or not.

    One that lives comes back when it renews its lease next, so that must be long.
    """
    successor = streams.connect(node=f"after-{node}", predecessors=[node])
    inbox = Inbox(successor, new_queue())
    with streams.client() as client:
        eventually(lambda: not client.sismember("unstuck:nodes", node))
    inbox.cancel()
    successor.release()


def test_a_predecessor_is_over_at_once(streams: Broker) -> None:
    """A supervisor that has seen main die need not wait for the lease."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, "taken over")
    with peer(streams.url(), queue.name, lease_seconds=60) as other:
        other.ask("take 1")
        node = other.ask("node")
        os.kill(other.pid, signal.SIGKILL)
        other.process.wait()
        start = time.monotonic()

        successor = streams.connect(
            node=f"after-{node}", lease_seconds=60, predecessors=[node]
        )
        inbox = Inbox(successor, queue)
        inbox.wait_for(1)

    assert time.monotonic() - start < 10
    assert inbox.messages[0].headers["x-delivery-count"] == 1


def test_what_a_process_ends_that_was_away_is_dropped(streams: Broker) -> None:
    """SIGSTOP for longer than the lease: its messages are others', and it learns so."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, 1, 2)
    with peer(streams.url(), queue.name) as other:
        other.ask("take 2")
        assert other.ask("is_ours") == [True, True]
        inbox = Inbox(streams.connect(), queue)
        os.kill(other.pid, signal.SIGSTOP)
        inbox.wait_for(2)
        os.kill(other.pid, signal.SIGCONT)

        other.ask("ack")

        eventually(lambda: other.ask("zombies") == 2, 5)
        assert other.ask("is_ours") == [False, False]
        assert waiting(connection, queue) == 0
    for message in inbox.messages:
        assert inbox.channel.is_ours(message.delivery_tag)
        message.ack()


def test_an_ending_that_comes_too_late_is_counted(streams: Broker) -> None:
    """Even before the process has learnt that it was reaped."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, *range(4))
    late = streams.connect(node="late", lease_seconds=30)
    inbox = Inbox(late, queue, prefetch=4)
    inbox.wait_for(4)
    inbox.cancel()
    before = inbox.channel.desk.zombies
    _reap(streams, "late", queue)

    inbox.messages[0].ack()
    inbox.messages[1].reject()
    inbox.messages[2].requeue()
    with inbox.channel.in_place_of(inbox.messages[3].delivery_tag):
        _publish_on(inbox.channel, queue, "instead")

    eventually(lambda: inbox.channel.desk.zombies == before + 4)
    assert waiting(connection, queue) == 4
    other = Inbox(streams.connect(), queue)
    assert sorted(other.wait_for(4)) == [0, 1, 2, 3]


def test_who_was_away_starts_nothing_before_it_knows_what_it_lost(
    own_streams: Broker,
) -> None:
    """However long the server does not say what others were given meanwhile."""
    connection, queue = own_streams.connect(), new_queue()
    publish(connection, queue, "given to others")
    inbox = Inbox(own_streams.connect(node="away", lease_seconds=10), queue)
    inbox.wait_for(1)
    desk, message = inbox.channel.desk, inbox.messages[0]
    with own_streams.client() as client:
        _say_that_it_is_gone(client, "away")
        client.execute_command("ACL", "SETUSER", "default", "-xpending")
        eventually(lambda: not desk.has_lease, 5)
        assert client.sismember("unstuck:nodes", "away")
        assert not inbox.channel.is_ours(message.delivery_tag)
        client.execute_command("ACL", "SETUSER", "default", "+xpending")

    eventually(lambda: desk.has_lease, 5)
    assert not inbox.channel.is_ours(message.delivery_tag)
    message.ack()
    assert desk.zombies == 1


def test_who_was_away_looks_also_when_the_answer_is_lost(
    streams: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server says it once; what is still ours stays so."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, "given to others")
    inbox = Inbox(streams.connect(node="away", lease_seconds=2), queue)
    inbox.wait_for(1)
    desk, client = inbox.channel.desk, inbox.channel._steward._client
    ask, unheard = client.execute_command, []

    def hear_not(*command: Any) -> Any:
        answer = ask(*command)
        if command[1] == scripts.TICK.sha and answer[0]:
            unheard.append(answer)
            raise redis.ConnectionError
        return answer

    monkeypatch.setattr(client, "execute_command", hear_not)
    with streams.client() as other:
        _say_that_it_is_gone(other, "away")

    eventually(lambda: unheard, 5)
    eventually(lambda: not inbox.channel.is_ours(inbox.messages[0].delivery_tag), 5)
    eventually(lambda: desk.has_lease, 5)
    assert not inbox.channel.is_ours(inbox.messages[0].delivery_tag)
    assert inbox.wait_for(2) == ["given to others"] * 2
    assert inbox.channel.is_ours(inbox.messages[1].delivery_tag)


def test_what_was_on_its_way_to_who_was_away_is_not_its_own(streams: Broker) -> None:
    """A busy consumer reads the answer of before only when the steward is done."""
    connection, queue = streams.connect(), new_queue()
    inbox = Inbox(streams.connect(node="behind", lease_seconds=4), queue)
    desk = inbox.channel.desk
    inbox.drain(0.1)  # waits at the server now
    publish(connection, queue, "given to others")
    eventually(lambda: _pending(streams, queue) == 1)
    with streams.client() as client:
        _say_that_it_is_gone(client, "behind")
        eventually(lambda: client.sismember("unstuck:nodes", "behind"), 5)
    asked = time.monotonic()
    eventually(lambda: desk.renewed_at > asked, 5)

    inbox.wait_for(1)
    inbox.drain(2)

    assert len(inbox.messages) == 1
    inbox.messages[0].ack()
    eventually(lambda: _pending(streams, queue) == 0)
    assert desk.zombies == 0
    assert waiting(connection, queue) == 0


def test_what_is_not_taken_and_was_ours_all_the_same_comes_soon(
    streams: Broker,
) -> None:
    """A look that was not needed, as nobody has taken this node for dead."""
    connection, queue = streams.connect(), new_queue()
    inbox = Inbox(streams.connect(), queue)
    inbox.drain(0.1)  # waits at the server now
    publish(connection, queue, "on its way")
    eventually(lambda: _pending(streams, queue) == 1)

    inbox.channel._steward._find_out_what_is_lost()
    inbox.drain(0.1)

    assert inbox.messages == []
    assert inbox.wait_for(1, 5) == ["on its way"]
    assert inbox.messages[0].headers.get("x-delivery-count", 0) == 0


def _say_that_it_is_gone(client: redis.Redis, node: str) -> None:
    """Have the server give to others what a node has, though it lives."""
    assert client.eval(scripts.LEAVE.text, 0, "unstuck:", node) == 1


def test_a_server_that_stood_still_reaps_nobody(own_streams: Broker) -> None:
    """SIGSTOP for three leases: no node could renew, and none is dead."""
    connection, queue = own_streams.connect(), new_queue()
    publish(connection, queue, "mine")
    assert own_streams.server is not None
    pid = own_streams.server.pid
    short = {"lease_seconds": 0.6}
    with peer(own_streams.url(), queue.name, **short) as other:
        other.ask("take 1")
        inbox = Inbox(own_streams.connect(node="watching", **short), queue)
        inbox.drain(0.3)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(3 * 0.6)
        os.kill(pid, signal.SIGCONT)

        def drained() -> bool:
            try:
                inbox.drain(0.2)
            except inbox.connection.connection_errors:
                return False
            return True

        eventually(drained)
        inbox.drain(LEASE)

        assert inbox.messages == []
        eventually(lambda: other.ask("is_ours") == [True], 5)
        other.ask("ack")
        eventually(lambda: _pending(own_streams, queue) == 0)
        assert other.ask("zombies") == 0


def test_a_full_server_costs_no_lease(own_streams: Broker) -> None:
    """However often one tries to say what it does not take."""
    connection, queue = own_streams.connect(), new_queue()
    publish(connection, queue, "first")
    inbox = Inbox(own_streams.connect(), queue)
    inbox.wait_for(1)
    desk = inbox.channel.desk
    with peer(own_streams.url(), queue.name) as other, own_streams.client() as client:
        other.ask("node")
        client.config_set("maxmemory", 1)
        with inbox.channel.in_place_of(inbox.messages[0].delivery_tag):
            _publish_on(inbox.channel, queue, "second")
        for _ in range(30):
            desk.wake()
            inbox.drain(0.05)

        assert client.sismember("unstuck:nodes", desk.node)
        assert _pending(own_streams, queue) == 1
        client.config_set("maxmemory", 0)
        os.kill(other.pid, signal.SIGKILL)
    assert inbox.wait_for(2) == ["first", "second"]
    assert desk.zombies == 0


def test_a_message_may_take_many_leases(streams: Broker) -> None:
    """As long as the process lives, nobody else gets it, also while it does not drain."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, "long")
    inbox = Inbox(streams.connect(node="busy", lease_seconds=0.3), queue)
    inbox.wait_for(1)
    with peer(streams.url(), queue.name, lease_seconds=0.3) as other:
        other.ask("node")
        time.sleep(1.5)

        assert inbox.channel.is_ours(inbox.messages[0].delivery_tag)
        inbox.messages[0].ack()
        eventually(lambda: _pending(streams, queue) == 0)
    assert inbox.channel.desk.zombies == 0


def test_nothing_of_a_node_is_left_that_has_closed(streams: Broker) -> None:
    """No lease, no name, no consumer of a group."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, 1, 2)
    consuming = streams.connect()
    inbox = Inbox(consuming, queue)
    inbox.wait_for(2)
    with streams.client() as client:
        assert client.scard("unstuck:nodes") == 1
        assert client.keys("unstuck:lease:*")
        inbox.messages[0].ack()

        consuming.release()

        assert client.scard("unstuck:nodes") == 0
        assert client.keys("unstuck:lease:*") == []
        assert client.keys("unstuck:streams:*") == []
        for stream in client.keys(f"unstuck:queue:{queue.name}:*"):
            assert client.xinfo_consumers(stream, "unstuck") == []
    assert waiting(connection, queue) == 1


def test_closing_waits_for_a_server_that_is_slow(streams: Broker) -> None:
    """Also where nothing was consumed any more: a worker cancels, and then closes."""
    inbox = Inbox(streams.connect(), new_queue())
    with streams.client() as client:
        client.client_pause(300, all=False)
        inbox.cancel()

        inbox.channel.close()

        assert client.scard("unstuck:nodes") == 0


def test_who_only_publishes_needs_no_lease(streams: Broker) -> None:
    """A web process leaves nothing behind."""
    publish(streams.connect(), new_queue(), 1, 2)

    with streams.client() as client:
        assert not client.exists("unstuck:nodes")


def test_a_lost_answer_is_given_back(streams: Broker) -> None:
    """What was reserved for us on a connection that was lost comes all the same."""
    connection, queue = streams.connect(), new_queue()
    inbox = Inbox(streams.connect(), queue)
    inbox.drain(0.1)  # waits at the server now
    publish(connection, queue, "reserved")
    eventually(lambda: _pending(streams, queue) == 1)

    sock = inbox.channel.client.connection._sock
    assert queue.name.encode() in sock.recv(65536)
    sock.shutdown(socket.SHUT_RDWR)

    # It is no sooner than a second that it can be told from what is on its way.
    inbox.wait_for(1, 5)
    assert inbox.messages[0].headers.get("x-delivery-count", 0) == 0


def test_acknowledgements_outlive_a_server_that_takes_none(
    own_streams: Broker,
) -> None:
    """READONLY: they are said again until they are taken, by whatever way they go."""
    connection, queue = own_streams.connect(), new_queue()
    publish(connection, queue, *range(40))
    inbox = Inbox(own_streams.connect(), queue, prefetch=50)
    inbox.wait_for(40)
    with own_streams.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        for message in inbox.messages:
            message.ack()
            inbox.channel._not_before = 0.0
            inbox.drain(0.01)
        assert _pending(own_streams, queue) == 40
        client.execute_command("REPLICAOF", "NO", "ONE")

    eventually(lambda: _pending(own_streams, queue) == 0)
    assert inbox.channel.desk.zombies == 0
    inbox.drain(0.1)
    assert len(inbox.messages) == 40


# Taking the place of a message, keeping one.


def test_what_is_published_takes_the_place_of_a_message(streams: Broker) -> None:
    """As one step, also to another queue, and later."""
    connection, queue, other = streams.connect(), new_queue(), new_queue()
    publish(connection, queue, "first")
    inbox = Inbox(streams.connect(), queue)
    inbox.wait_for(1)
    other(inbox.channel).declare()

    with inbox.channel.in_place_of(inbox.messages[0].delivery_tag):
        _publish_on(inbox.channel, queue, "second")
        _publish_on(inbox.channel, other, "letter")
        _publish_on(inbox.channel, queue, "third", headers={"eta": _after(1.5)})
        assert _pending(streams, queue) == 1

    assert inbox.wait_for(3) == ["first", "second", "third"]
    assert Inbox(streams.connect(), other).wait_for(1) == ["letter"]


def test_in_place_of_with_nothing_published_is_an_acknowledgement(
    streams: Broker,
) -> None:
    """Nothing takes its place."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, "first")
    inbox = Inbox(streams.connect(), queue)
    inbox.wait_for(1)

    with inbox.channel.in_place_of(inbox.messages[0].delivery_tag):
        pass

    eventually(lambda: _pending(streams, queue) == 0)
    assert waiting(connection, queue) == 0


def test_what_fails_takes_the_place_of_nothing(streams: Broker) -> None:
    """The message stays in hand, and nothing was published."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, "first")
    inbox = Inbox(streams.connect(), queue)
    inbox.wait_for(1)
    message = inbox.messages[0]

    def fail() -> None:
        with inbox.channel.in_place_of(message.delivery_tag):
            _publish_on(inbox.channel, queue, "second")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    inbox.drain(0.3)
    assert inbox.bodies == ["first"]
    assert inbox.channel.is_ours(message.delivery_tag)
    _publish_on(inbox.channel, queue, "after")
    assert inbox.wait_for(2) == ["first", "after"]


def test_what_is_kept_stays_in_hand_when_the_channel_closes(streams: Broker) -> None:
    """And is acknowledged by the channel that is closed."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, *range(3))
    consuming = streams.connect()
    inbox = Inbox(consuming, queue)
    inbox.wait_for(3)
    kept, acked, given = inbox.messages
    acked.ack()
    inbox.channel.keep({kept.delivery_tag})
    consuming.release()

    other = Inbox(streams.connect(), queue, prefetch=3)
    other.wait_for(1)
    time.sleep(1.2 * LEASE)
    other.drain(0.1)

    assert other.bodies == [given.payload]
    assert other.channel.is_ours(kept.delivery_tag)
    kept.ack()
    eventually(lambda: _pending(streams, queue) == 1)
    assert waiting(connection, queue) == 0


def test_what_is_kept_counts_as_in_hand(streams: Broker) -> None:
    """The next channel of the process has so much less room."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, *range(4))
    consuming = streams.connect()
    first = Inbox(consuming, queue, prefetch=2)
    first.wait_for(2)
    first.channel.keep({message.delivery_tag for message in first.messages})
    consuming.release()

    second = Inbox(streams.connect(), queue, prefetch=3)
    second.wait_for(1)
    second.drain(0.2)

    assert second.bodies == [2]
    for message in first.messages:
        message.ack()
    assert second.wait_for(2) == [2, 3]
    second.connection.release()


# Later.


def test_a_message_waits_for_its_time(streams: Broker) -> None:
    """In Redis, not in anybody's hands; and not much longer."""
    connection, queue = streams.connect(), new_queue()
    inbox = Inbox(streams.connect(), queue)
    start = time.monotonic()
    publish(connection, queue, "late", headers={"eta": _after(2.5)}, priority=9)
    publish(connection, queue, "soon", headers={"eta": _after(1.5)})
    publish(connection, queue, "past", headers={"eta": _after(-5)})
    publish(connection, queue, "now", headers={"eta": None})

    assert inbox.wait_for(2) == ["past", "now"]
    assert _pending(streams, queue) == 2
    inbox.wait_for(3)
    assert time.monotonic() - start > 1.4
    inbox.wait_for(4)

    assert time.monotonic() - start > 2.4
    assert inbox.bodies[2:] == ["soon", "late"]


def test_what_waits_for_its_time_outlives_who_sent_it(streams: Broker) -> None:
    """The same message twice are two, and a long time is no trouble."""
    queue = new_queue()
    sender = streams.connect()
    at = _after(0.5)
    publish(sender, queue, "same", "same", headers={"eta": at})
    publish(sender, queue, "never", headers={"eta": _after(10**9)})
    sender.release()

    inbox = Inbox(streams.connect(), queue)
    inbox.wait_for(2)
    inbox.drain(0.3)

    assert inbox.bodies == ["same", "same"]


def test_a_time_that_cannot_be_read_is_left_to_the_worker(streams: Broker) -> None:
    """It comes at once, as it was sent."""
    connection, queue = streams.connect(), new_queue()
    for eta in ("tomorrow", "2999-01-01T00:00:00", 17):
        publish(connection, queue, eta, headers={"eta": eta})

    inbox = Inbox(streams.connect(), queue)

    assert inbox.wait_for(3) == ["tomorrow", "2999-01-01T00:00:00", 17]
    assert [message.headers["eta"] for message in inbox.messages] == inbox.bodies


def test_many_come_due_at_once(streams: Broker) -> None:
    """More than one step moves, of more than one queue."""
    connection, queues = streams.connect(), [new_queue(), new_queue()]
    eta = _after(0.8)
    for queue in queues:
        publish(connection, queue, *range(400), headers={"eta": eta})

    inbox = Inbox(streams.connect(), *queues, on_message=lambda m: m.ack())
    inbox.wait_for(800)

    assert sorted(inbox.bodies) == sorted([*range(400)] * 2)


# The bridge.


def test_what_kombus_own_transport_sends_reaches_us(streams: Broker) -> None:
    """In order, with its priorities, also what comes while we wait."""
    stock, queue = Broker("redis", streams.server), new_queue()
    sender = stock.connect()
    publish(sender, queue, *range(3))
    publish(sender, queue, "least urgent", priority=9)
    inbox = Inbox(streams.connect(), queue, on_message=lambda m: m.ack())

    assert inbox.wait_for(4) == [0, 1, 2, "least urgent"]
    publish(sender, queue, "later")
    inbox.wait_for(5)

    with streams.client() as client:
        assert not client.exists(queue.name)
    stock.close()


def test_what_kombus_own_transport_sends_is_counted_and_purged(
    streams: Broker,
) -> None:
    """And had by ``basic_get``, with a prefix too."""
    stock, queue = Broker("redis", streams.server), new_queue()
    sender = stock.connect(global_keyprefix="p:")
    connection = streams.connect(global_keyprefix="p:")
    queue(connection.default_channel).declare()
    publish(sender, queue, *range(3))
    publish(sender, queue, 3, priority=9)

    assert waiting(connection, queue) == 4
    got = connection.default_channel.basic_get(queue.name)
    assert got.payload == 0
    assert queue(connection.default_channel).purge() == 3
    got.ack()
    sender.release()


def test_what_dead_stock_workers_had_in_hand_comes_here(
    own_streams: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After their ``visibility_timeout``, as on kombu's own transport."""
    monkeypatch.setattr("unstuck.transport.steward.CHORES_SECONDS", 0.2)
    stock, queue = Broker("redis", own_streams.server), new_queue()
    publish(stock.connect(), queue, "unacked")
    holder = Inbox(stock.connect(), queue)
    holder.wait_for(1)

    inbox = Inbox(own_streams.connect(visibility_timeout=1), queue)
    inbox.wait_for(1, 6)

    assert inbox.bodies == ["unacked"]
    inbox.messages[0].ack()
    holder.messages[0].ack()
    stock.close()


def test_looking_for_what_stock_workers_had_leaves_nothing_behind(
    streams: Broker,
) -> None:
    """However often it is done: not even the channel that did it."""
    stock, queue = Broker("redis", streams.server), new_queue()
    publish(stock.connect(), queue, "unacked")
    holder = Inbox(stock.connect(), queue)
    holder.wait_for(1)
    consuming = streams.connect(visibility_timeout=60)
    inbox = Inbox(consuming, queue)
    before = len(util._finalizer_registry)

    for _ in range(3):
        inbox.channel._restore_of_others()

    assert len(util._finalizer_registry) == before
    assert inbox.bodies == []
    stock.close()


# What is no message.

BAD = [
    b"",
    b"\x00\xff garbage",
    b"[]",
    b'"text"',
    b"17",
    b"null",
    b"{}",
    b"[" * 100_000,
    b'{"properties": null, "headers": {}}',
    b'{"properties": {"delivery_info": {}}, "headers": null}',
    b'{"properties": {"delivery_info": []}, "headers": {}}',
    b'{"properties": {"delivery_info": {}}, "headers": []}',
]
"""What cannot be read as a message of kombu's at all."""

BAD_BODIES: list[dict[str, Any]] = [
    {"body": "abc", "body_encoding": "base64"},
    {"body": 17, "body_encoding": "base64"},
    {"body": "text", "body_encoding": "rot13"},
    {"body": {"a": 1}, "body_encoding": "base64"},
]
"""What looks like one, until its body is read."""


@pytest.mark.parametrize("way", ["stream", "list"])
def test_what_is_no_message_is_delivered_as_it_is(streams: Broker, way: str) -> None:
    """For the worker to bury; and those after it come."""
    connection, queue = streams.connect(), new_queue()
    raw = [*BAD, *map(_with_bad_body, BAD_BODIES)]
    with streams.client() as client:
        for content in raw:
            if way == "stream":
                client.xadd(f"unstuck:queue:{queue.name}:0", {"m": content})
            else:
                client.lpush(queue.name, content)
    inbox = Inbox(streams.connect(), queue, on_message=lambda m: m.ack())
    eventually(lambda: len(_drained(inbox)) == len(raw))
    publish(connection, queue, "good")
    eventually(lambda: len(_drained(inbox)) == len(raw) + 1)

    contents = [message.body for message in inbox.messages]
    assert contents[: len(BAD)] == BAD
    for content, sent in zip(contents[len(BAD) : -1], raw[len(BAD) :], strict=True):
        assert json.loads(content)["body"] == json.loads(sent)["body"]
    assert json.loads(contents[-1]) == "good"
    eventually(lambda: _pending(streams, queue) == 0)


def test_what_is_no_message_may_be_lost_and_given_back(streams: Broker) -> None:
    """As all others, byte for byte."""
    queue = new_queue()
    with streams.client() as client:
        for content in BAD:
            client.xadd(f"unstuck:queue:{queue.name}:0", {"m": content})
    lost = Inbox(streams.connect(node="lost", lease_seconds=60), queue)
    eventually(lambda: len(_drained(lost)) == len(BAD))
    lost.cancel()
    _reap(streams, "lost", queue)

    inbox = Inbox(streams.connect(), queue)
    eventually(lambda: len(_drained(inbox)) == len(BAD))

    assert sorted(message.body for message in inbox.messages) == sorted(BAD)


def _with_bad_body(fields: dict[str, Any]) -> bytes:
    return json.dumps(
        {
            "body": fields["body"],
            "headers": {},
            "properties": {
                "body_encoding": fields["body_encoding"],
                "delivery_info": {},
            },
        }
    ).encode()


def _drained(inbox: Inbox) -> list[Any]:
    inbox.drain(0.05)
    return inbox.messages


def test_the_body_is_what_others_would_read(streams: Broker) -> None:
    """The format in the stream is kombu's own, so anybody can put one there."""
    connection, queue = streams.connect(), new_queue()
    publish(connection, queue, {"a": "ü"})

    with streams.client() as client:
        ((_, fields),) = client.xrange(f"unstuck:queue:{queue.name}:0")

    message = json.loads(fields[b"m"])
    assert json.loads(base64.b64decode(message["body"])) == {"a": "ü"}
    assert message["content-type"] == "application/json"


def _publish_on(channel: Any, queue: kombu.Queue, body: Any, **options: Any) -> None:
    """Publish on this very channel."""
    kombu.Producer(channel, serializer="json").publish(
        body, exchange=queue.exchange, routing_key=queue.routing_key, **options
    )


def _pending(streams: Broker, queue: kombu.Queue) -> int:
    """How many messages of a queue are in anybody's hands."""
    found = 0
    with streams.client() as client:
        for stream in client.keys(f"unstuck:queue:{queue.name}:*"):
            found += sum(group["pending"] for group in client.xinfo_groups(stream))
    return found


def _after(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
