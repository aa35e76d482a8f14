"""Queues of a channel: declared, counted, purged, deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from amqp.protocol import queue_declare_ok_t
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.utils.uuid import uuid

from unstuck.transport import census, lookup, scripts
from unstuck.transport.census import Census
from unstuck.transport.lookup import Delayed, Search
from unstuck.transport.publishing import PublishingChannel

PURGE_AT_ONCE = 1000


class QueuesChannel(PublishingChannel):
    """What there is of a queue: its streams, what is delayed, and kombu's own lists."""

    def queue_declare(
        self, queue: str | None = None, passive: bool = False, **kwargs: Any
    ) -> queue_declare_ok_t:
        """Declare a queue; says how many messages wait in it, and how many read it."""
        queue = queue or f"amq.gen-{uuid()}"
        if passive:
            declared = super().queue_declare(queue, passive=True, **kwargs)
            return declared._replace(consumer_count=self._count(queue)[1])
        self._new_queue(queue, **kwargs)
        return queue_declare_ok_t(queue, *self._count(queue))

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        """What a queue is declared with; kombu 5.6 forgets when one expires."""
        return to_rabbitmq_queue_arguments(arguments, **kwargs)

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        super()._new_queue(queue, **kwargs)
        expires = (kwargs.get("arguments") or {}).get("x-expires")
        self._expires.pop(queue, None)
        if expires is not None:
            self._expires[queue] = int(expires)
        self.commands.execute_command("SADD", self.keys.queues, queue)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        with self.commands.pipeline(transaction=False) as pipe:
            pipe.execute_command("SISMEMBER", self.keys.queues, queue)
            pipe.execute_command(
                "EXISTS", *self._names_of(queue), *self._lists_of(queue)
            )
            return any(pipe.execute())

    def _size(self, queue: str) -> int:
        return self._count(queue)[0]

    def _count(self, queue: str) -> tuple[int, int]:
        """How many messages wait, and how many read them."""
        if self.has_office:
            self.desk.flush(self.commands)
        streams, lists = self._streams_of([queue]), self._lists_of(queue)
        head = ("EVAL", scripts.SIZE.text, len(streams) + len(lists))
        waiting, readers = self.commands.execute_command(
            *head, *streams, *lists, len(streams), self.keys.root
        )
        return waiting, readers

    def census(self, queue: str) -> Census:
        """What there is of a queue, and in whose hands."""
        streams, lists = self._streams_of([queue]), list(self._lists_of(queue))
        return census.take(self.commands, streams, lists, self.keys.delayed(queue))

    def queues_with_delayed(self) -> list[str]:
        """The queues that have messages whose time has not come."""
        return lookup.queues_with_delayed(self.commands, self.keys)

    def count_delayed(self, queues: Sequence[str]) -> dict[str, int]:
        """How many such messages each queue has."""
        return lookup.count_delayed(self.commands, self.keys, queues)

    def first_delayed(self, queue: str, most: int) -> Iterator[Delayed]:
        """Those of a queue that are due first, read a few at a time."""
        return lookup.first_delayed(self.commands, self.keys, queue, most)

    def delayed_with(
        self, queue: str, text: str, until: float
    ) -> tuple[list[Delayed], bool]:
        """Those of a queue that have a text in them; whether those are all."""
        return lookup.delayed_with(self.commands, self.keys, queue, text, until)

    def take_delayed(self, delayed: Delayed, instead: str | None = None) -> bool:
        """Take one away, and put another in the queue in its place, as one step."""
        return bool(self._tell(lookup.taking(self.keys, delayed, instead)))

    def search(self, queue: str, text: str, most: int, until: float) -> Search:
        """The messages of a queue that have a text in them, and where they are."""
        streams = self._streams_of([queue])
        return lookup.search(self.commands, streams, text, most, until)

    def _purge(self, queue: str) -> int:
        purged = 0
        for stream in self._streams_of([queue]):
            command = ("EVAL", scripts.PURGE.text, 1, stream, PURGE_AT_ONCE)
            while number := self.commands.execute_command(*command):
                purged += number
        return int(purged) + int(super()._purge(queue))

    def queue_delete(
        self,
        queue: str,
        if_unused: bool = False,
        if_empty: bool = False,
        **kwargs: Any,
    ) -> None:
        """Delete a queue with all that is in it, delayed messages too."""
        waiting, readers = self._count(queue)
        if (if_empty and waiting) or (if_unused and readers):
            return
        super().queue_delete(queue, **kwargs)
        with self.commands.pipeline(transaction=True) as pipe:
            pipe.execute_command("DEL", *self._names_of(queue), *self._lists_of(queue))
            pipe.execute_command("SREM", self.keys.queues, queue)
            pipe.execute_command("ZREM", self.keys.due, queue)
            pipe.execute()
