"""Durable queues on RabbitMQ: quorum queues, whose drops become dead letters.

Only a queue that is not there yet is made like that. One that is there stays as it is,
whoever declared it and however: a queue is never the reason not to work.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Self

import kombu

from unstuck.fields import Fields
from unstuck.rabbit import server

DEAD = "unstuck.dead"
"""The queue of dead letters."""

DELIVERY_LIMIT = 20
"""How often a message may be handed out and lost: the default of RabbitMQ 4.

We bury what is poison long before; this is for what kills a node before it can say so.
"""

NO_LIMIT = 2**31 - 1
"""For the dead letters, which nothing else would keep."""

QUORUM = {"x-queue-type": "quorum"}
OF_QUORUM_ALONE = frozenset({"x-delivery-limit", "x-dead-letter-strategy"})
LENGTHS = ("x-max-length", "x-max-length-bytes")
MOST_QUESTIONS = 16

DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' .*but current is "
    r"(?P<now>none|'(?P<same>.*)'|the value '(?P<other>.*)' of type '(?P<type>\w+)')$"
)
INTEGERS = frozenset({"signedint", "long", "short", "byte", "unsignedint"})

logger = logging.getLogger(__name__)


class PatientQueue(kombu.Queue):  # type: ignore[misc] # kombu is untyped here
    """A queue that is declared unless it is there already, in whatever way."""

    @classmethod
    def of(cls, queue: kombu.Queue) -> Self:
        """The same queue as one of these."""
        return cls(**queue.as_dict(), on_declared=queue.on_declared)

    def queue_declare(
        self, nowait: bool = False, passive: bool = False, channel: Any = None
    ) -> Any:
        """Declare it. What RabbitMQ has against arguments of ours is no error."""
        channel = channel or self.channel
        if passive or not self._is_lasting_on(channel):
            return super().queue_declare(nowait, passive, channel)
        told = self._declare_safely(channel)
        if told is None:
            return super().queue_declare(nowait, passive, channel)
        if self.on_declared:
            self.on_declared(*told)
        return told

    def wanted(self, channel: Any) -> dict[str, Any]:
        """All arguments that it is declared with: the project's own and ours."""
        own = self._own_arguments(channel)
        return {**self.ours(own), **own}

    def ours(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Our arguments beside those of the project, which win."""
        return {}

    def _is_lasting_on(self, channel: Any) -> bool:
        return (
            bool(self.name)
            and self.durable
            and not (self.exclusive or self.auto_delete)
            and server.has_quorum_queues(channel)
        )

    def _own_arguments(self, channel: Any) -> dict[str, Any]:
        return dict(
            channel.prepare_queue_arguments(
                self.queue_arguments or {},
                expires=self.expires,
                message_ttl=self.message_ttl,
                max_length=self.max_length,
                max_length_bytes=self.max_length_bytes,
                max_priority=self.max_priority,
            )
        )

    def _declare_safely(self, channel: Any) -> Any:
        """What the broker answers; ``None`` when it cannot have it with our arguments."""
        arguments = self.wanted(channel)
        errors = channel.connection.channel_errors
        for _ in range(2):
            # Asked first: a mismatch would be an error in the broker's log each time.
            try:
                return server.aside(channel, self._look)
            except errors as error:
                if server.code_of(error) != server.MISSING:
                    raise
            if arguments.get("x-dead-letter-routing-key") == DEAD:
                dead_letter_queue()(channel).declare()
            try:
                return server.aside(channel, lambda other: self._make(other, arguments))
            except errors as error:
                if server.code_of(error) != server.MISMATCH:
                    raise
                # Somebody else has just made it; or quorum queues cannot do what the
                # project wants of it, such as priorities.
                refusal = server.words_of(error)
        if arguments != self._own_arguments(channel):
            logger.warning(
                "A queue is a classic one: %(fields)s",
                Fields(queue=self.name, why=refusal),
            )
        return None

    def _look(self, channel: Any) -> Any:
        return channel.queue_declare(self.name, passive=True)

    def _make(self, channel: Any, arguments: Mapping[str, Any]) -> Any:
        return channel.queue_declare(
            self.name, durable=True, auto_delete=False, arguments=dict(arguments)
        )


class SafeQueue(PatientQueue):
    """One that is made a quorum queue, whose drops become letters.

    Unless the project says itself what type of queue it is.
    """

    def ours(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Our arguments beside those of the project, which win."""
        if "x-queue-type" in own:
            return {}
        added: dict[str, Any] = {**QUORUM, "x-delivery-limit": DELIVERY_LIMIT}
        if "x-dead-letter-exchange" in own:
            return added
        added |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
        if _refuses_what_is_too_much(own):
            # A letter that is on its way survives a crash of the broker, too.
            added |= {
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        return added


class _DeadLetterQueue(PatientQueue):
    """Where letters wait. What it dropped would be gone."""

    def ours(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Replicated, and never dropped."""
        return {**QUORUM, "x-delivery-limit": NO_LIMIT}


def dead_letter_queue(name: str = DEAD) -> kombu.Queue:
    """The durable queue that dead letters wait in until they are archived."""
    return _DeadLetterQueue(name, kombu.Exchange(""), routing_key=name, durable=True)


def arguments_of(channel: Any, queue: kombu.Queue) -> dict[str, Any] | None:
    """The arguments that a queue has on the broker, which must be there.

    AMQP has no question for them, but a declaration that differs is answered by one
    difference. ``None`` when that does not lead to an end.
    """
    said: dict[str, Any] = dict(queue.queue_arguments or {})
    if isinstance(queue, PatientQueue):
        said = queue.wanted(channel)
    for _ in range(MOST_QUESTIONS):
        try:
            server.aside(channel, lambda other: _ask(other, queue, said))
        except channel.connection.channel_errors as error:
            difference = DIFFERENCE.search(server.words_of(error))
            if difference is None:
                return None
            _correct(said, difference)
        else:
            return said if is_quorum(said) else _without_what_classic_ones_ignore(said)
    return None


def is_quorum(arguments: Mapping[str, Any] | None) -> bool:
    """Whether it is, or may be, a quorum queue."""
    return arguments is None or arguments.get("x-queue-type") == "quorum"


def differences(
    wanted: Mapping[str, Any], found: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    """Where a queue is not as it would be declared: name, wanted, found."""
    there = found or {}
    return {
        name: (wanted.get(name), there.get(name))
        for name in sorted({*wanted, *there})
        if wanted.get(name) != there.get(name)
    }


def _ask(channel: Any, queue: kombu.Queue, said: Mapping[str, Any]) -> None:
    channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(said),
    )


def _without_what_classic_ones_ignore(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: said[name] for name in said if name not in OF_QUORUM_ALONE}


def _correct(said: dict[str, Any], difference: re.Match[str]) -> None:
    name = difference["name"]
    if difference["now"] == "none":
        said.pop(name, None)
        return
    if difference["same"] is not None:
        value, is_number = difference["same"], isinstance(said.get(name), int)
    else:
        value, is_number = difference["other"], difference["type"] in INTEGERS
    said[name] = int(value) if is_number else value


def _refuses_what_is_too_much(own: Mapping[str, Any]) -> bool:
    if "x-overflow" in own:
        return bool(own["x-overflow"] == "reject-publish")
    return not any(name in own for name in LENGTHS)
