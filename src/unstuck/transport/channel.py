"""A channel on Redis Streams.

How it connects, pub/sub for fanout exchanges, and the tables of bindings are kombu's own
Redis channel's; queues are not. Seams of kombu used here, each covered by
tests/contract/test_transport.py: the poller calls ``_brpop_start`` when there is room for
messages and the handler named BRPOP when the connection has something to read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry

from unstuck.fields import Fields
from unstuck.transport import scripts
from unstuck.transport.broadcasts import ANSWER_SECONDS, BroadcastsChannel
from unstuck.transport.desk import ack_commands, tag_of
from unstuck.transport.keys import GROUP, queue_of
from unstuck.transport.message import Message, message_in
from unstuck.transport.qos import QoS
from unstuck.transport.steward import Service

logger = logging.getLogger(__name__)

BLOCK_SECONDS = 1.0
PAUSE_SECONDS = 1.0
"""After an answer that says that the server cannot do it now."""

BRIDGE_AT_ONCE = 1000
RESTORE_AT_ONCE = 1000
"""So many that it takes the steward no time that the lease would miss."""

_Entry = tuple[str, str, list[bytes]]


class Channel(BroadcastsChannel):
    """A channel whose messages stay ours when its connection is lost."""

    Message = Message
    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.kept: Collection[str] = ()
        """The messages that stay in hand when the channel closes."""

        self._no_ack: set[str] = set()
        self._reading: _Reading | None = None
        self._polled: set[str] = set()
        self._has_steward = False
        self._not_before = 0.0
        self._hungry = True
        """Whether the last read has found as many messages as it asked for."""

        super().__init__(*args, **kwargs)
        self.handlers["BRPOP"] = self._read

    def keep(self, delivery_tags: Collection[str]) -> None:
        """These stay in hand when the channel closes; all others are for others."""
        self.kept = delivery_tags

    def take_ahead(self, appetite: Callable[[], int]) -> None:
        """Take as many messages beyond the prefetch count as ``appetite`` says."""
        self.qos.appetite = appetite

    def surplus(self) -> int:
        """How many messages beyond the prefetch count are in hand and not wanted now."""
        qos = self.qos
        if not qos.prefetch_count or qos.appetite() > 0:
            return 0
        return int(qos.in_hand - qos.prefetch_count)

    def put_at(self, delivery_tag: str) -> float:
        """Since when that message could be read, by the clock of the server."""
        # The id of an entry begins with the milliseconds.
        return int(delivery_tag.partition("-")[0]) / 1000

    def is_ours(self, delivery_tag: str) -> bool:
        """Whether nobody else can have that message now, as far as can be known."""
        return self.desk.is_ours(delivery_tag)

    # Consuming.

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from ``queue``."""
        if no_ack:
            self._no_ack.add(queue)
        consumer = super().basic_consume(queue, no_ack, *args, **kwargs)
        self._hungry = True
        self._tell_steward()
        return consumer

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        fanout = queue in self._fanout_queues
        cancelled = super()._basic_cancel(consumer_tag)
        self._no_ack.discard(queue)
        if queue is not None and not fanout:
            self._stop_reading()
            self._tell_steward()
        return cancelled

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """One message now, or ``None``."""
        if not no_ack and queue not in self._polled:
            self._polled.add(queue)
            self._tell_steward()
        streams = self._streams_of([queue])
        with self.commands.pipeline(transaction=False) as pipe:
            for name, stream in self._lists_of(queue).items():
                pipe.eval(scripts.BRIDGE.text, 2, name, stream, BRIDGE_AT_ONCE)
            pops = str(int(no_ack)) * len(streams)
            head = ("EVAL", scripts.RESERVE.text, len(streams))
            pipe.execute_command(*head, *streams, self.desk.node, 1, pops)
            found = pipe.execute()[-1]
        for stream, entry, fields in _entries_in(found):
            tag = tag_of(stream, entry)
            message = self.Message(message_in(fields, tag, queue), channel=self)
            if not no_ack and self.desk.reserve(tag):
                self.qos.append(message, tag)
            return message
        return None

    def _tell_steward(self) -> None:
        """Have what is read here looked after, and what is in hand."""
        queues = [*self.active_queues, *self._polled]
        if not queues and not self.qos._delivered:
            self._dismiss_steward(wait=False)
            return
        self._has_steward = True
        service = Service(
            streams=[name for queue in queues for name in self._streams_of([queue])],
            lists={k: v for queue in queues for k, v in self._lists_of(queue).items()},
            expiring={
                name: self._expires[queue]
                for queue in queues
                if queue in self._expires
                for name in self._names_of(queue)
            },
            restore=self._restore_of_others,
        )
        self._steward.serve(self, service)

    def _dismiss_steward(self, *, wait: bool) -> None:
        self._has_steward = False
        self._steward.dismiss(self, wait=wait)

    def _restore_of_others(self) -> None:
        """Give back what dead workers with kombu's own transport had in hand.

        As that transport does, and after its ``visibility_timeout``; its messages go to its
        lists, and come from there.
        """
        if not self.closed and self.commands.exists(
            self.global_keyprefix + self.unacked_index_key
        ):
            most = self.unacked_restore_limit or RESTORE_AT_ONCE
            theirs = kombu_redis.QoS(self)
            theirs._on_collect.cancel()  # It would be kept for ever, and we with it.
            theirs.restore_visible(num=most)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for messages; the answer comes when it comes."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        room = self._room_for(queues)
        if not queues or room <= 0 or time.monotonic() < self._not_before:
            return
        streams = self._streams_of(queues)
        acks = self.desk.take_acks()
        if acks or self._hungry:
            self._reading = _Reading(acks=acks, asked=room)
            self._ask(*ack_commands(acks), self._reserve(streams, room))
        else:
            self._reading = _Reading(blocks=True, asked=1)
            self._ask(self._wait_for_one(streams))

    def _room_for(self, queues: Collection[str]) -> int:
        """How many messages may come at once.

        One, where none is acknowledged: kombu's mailbox, which collects the answers of
        nodes, takes each ``drain_events()`` for one of them.
        """
        room: int = self.qos.room
        return min(room, 1) if self._no_ack.issuperset(queues) else room

    def _ask(self, *commands: Sequence[Any]) -> None:
        connection = self.client.connection
        self._in_poll = connection
        try:
            connection.send_packed_command(connection.pack_commands(commands))
        except self.connection_errors:
            self._lost_connection()
            raise

    def _reserve(self, streams: Sequence[str], room: int) -> tuple[Any, ...]:
        root, no_ack = self.keys.root, self._no_ack
        pops = "".join("01"[queue_of(stream, root) in no_ack] for stream in streams)
        head = ("EVALSHA", scripts.RESERVE.sha, len(streams))
        return (*head, *streams, self.desk.node, room, pops)

    def _wait_for_one(self, streams: Sequence[str]) -> tuple[Any, ...]:
        head = ("XREADGROUP", "GROUP", GROUP, self.desk.node, "COUNT", 1)
        # When we are frozen, this must be over before our lease is.
        milliseconds = int(min(BLOCK_SECONDS, self.lease_seconds / 4) * 1000)
        news = [">"] * len(streams)
        return (*head, "BLOCK", milliseconds, "STREAMS", *streams, *news)

    def _read(self) -> bool:
        """Take what the server has answered, and deliver it."""
        reading, self._reading = self._reading, None
        self._in_poll = None
        if reading is None:
            # Nothing was asked: the server has closed the connection.
            self._lost_connection()
            raise Empty
        try:
            answer = self._answer_to(reading)
        except ResponseError as error:
            self.desk.put_back_acks(reading.acks)
            self._on_refusal(error)
            raise Empty from None
        except self.connection_errors as error:
            logger.info(
                "The connection that messages come by was lost: %(fields)s",
                Fields(error=error),
            )
            self._lost_connection(reading)
            raise Empty from None
        entries = list(_entries_in(answer))
        self._hungry = (
            bool(entries) if reading.blocks else len(entries) >= reading.asked
        )
        # Of several streams a reading that blocks may have got one each.
        for stream, entry, _ in entries[reading.asked :]:
            self._refuse(tag_of(stream, entry))
        self._deliver_all(entries[: reading.asked], reading)
        if not entries:
            raise Empty
        return True

    def _answer_to(self, reading: _Reading) -> Any:
        connection = self.client.connection
        removed = 0
        for command in ack_commands(reading.acks):
            answer = connection.read_response()
            if command[0] == "XACK":
                removed += answer
        if reading.acks:
            acks, reading.acks = reading.acks, []
            self.desk.said(acks, removed)
        return connection.read_response()

    def _on_refusal(self, error: ResponseError) -> None:
        """The server cannot do it, or not now."""
        self._hungry = True
        if isinstance(error, NoScriptError):
            self.commands.script_load(scripts.RESERVE.text)
        elif "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
            logger.warning("The server has lost its streams; they are made anew")
        else:
            logger.warning(
                "The server refuses to give messages: %(fields)s", Fields(error=error)
            )
            self._not_before = time.monotonic() + PAUSE_SECONDS
            self._lost_connection()

    def _lost_connection(self, reading: _Reading | None = None) -> None:
        """Connect anew when messages are asked for next; nothing is lost by it."""
        reading = reading or self._reading
        self._reading = None
        if reading:
            self.desk.put_back_acks(reading.acks)
        self._hungry = True
        self._steward.suspect_ghosts()
        self.client.connection.disconnect()

    def _stop_reading(self) -> None:
        """What was asked for is wanted no more."""
        if self._reading:
            self._lost_connection()

    @property
    def may_ask(self) -> bool:
        """Whether messages are wanted, and none are asked for yet."""
        wanted = self._reading is None and bool(self.active_queues)
        return bool(wanted and self.qos.can_consume() and self.desk.has_lease)

    def say_what_cannot_wait(self) -> None:
        """Have the steward say what no question takes along soon."""
        waits_for_all = self._reading is not None and not self._reading.blocks
        if self._has_steward and not waits_for_all and self.desk.has_something_to_say:
            self.desk.wake()

    def drop_if_overdue(self) -> None:
        """Do not wait for an answer that will not come."""
        reading = self._reading
        if reading and time.monotonic() > reading.overdue_at:
            logger.warning("The server does not answer; connecting anew")
            self._lost_connection()

    def _deliver_all(self, entries: Sequence[_Entry], reading: _Reading) -> None:
        """Hand them to the consumers."""
        waiting = iter(entries)
        try:
            for stream, entry, fields in waiting:
                self._deliver_entry(stream, entry, fields, reading)
        finally:
            # Whoever was to take one has raised: the others are for others.
            for stream, entry, _ in waiting:
                self._refuse(tag_of(stream, entry))

    def _deliver_entry(
        self, stream: str, entry: str, fields: list[bytes], reading: _Reading
    ) -> None:
        queue, tag = queue_of(stream, self.keys.root), tag_of(stream, entry)
        if queue in self._no_ack and not reading.blocks:
            pass  # It was popped.
        elif queue not in self.connection._callbacks:
            self._refuse(tag)
            return
        elif not self.desk.reserve(tag, reading.asked_at):
            self._steward.suspect_ghosts()  # It may be ours all the same.
            return
        elif queue in self._no_ack:
            self.desk.ack(tag)
        self._queue_cycle.rotate(queue)
        self.connection._deliver(message_in(fields, tag, queue), queue)

    def _refuse(self, tag: str) -> None:
        if self.desk.reserve(tag):
            self.desk.give_back(tag)

    def _poll_error(self, kind: str, **options: Any) -> None:
        self.handlers[kind]()

    def close(self) -> None:
        """Close the channel; what is in hand and not kept is for others."""
        if not self.closed:
            self._closing = True
            self._stop_reading()
            if self.has_office:
                self.qos.restore_unacked_once()
                self._polled.clear()
                self._dismiss_steward(wait=True)
        super().close()


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """A channel to the server that Sentinel says is the primary one."""

    # Where one of them is gone, redis-py would try it for ten seconds.
    sentinel_kwargs = {
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    from_transport_options = (
        *kombu_redis.SentinelChannel.from_transport_options,
        *Channel.from_transport_options,
    )


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What was asked for on the connection that messages come by."""

    asked: int
    """How many messages."""

    acks: list[str] = field(default_factory=list)
    """What was acknowledged along with it."""

    blocks: bool = False
    """Whether the server answers when there is something, not at once."""

    asked_at: float = field(default_factory=time.monotonic)

    @property
    def overdue_at(self) -> float:
        """When the answer is so late, on the monotonic clock, that it will not come."""
        wait = ANSWER_SECONDS + (BLOCK_SECONDS if self.blocks else 0)
        return self.asked_at + wait


def _entries_in(answer: Any) -> Iterator[_Entry]:
    """Stream, id and fields of each message in what the server has answered."""
    for name, entries in answer or ():
        stream = bytes_to_str(name)
        for entry, fields in entries:
            yield stream, bytes_to_str(entry), fields
