"""What this process has reserved on one server, and what it has yet to say of it.

Channels and connections come and go; what is reserved stays with the process, under the
name of its node, as long as its lease lives. So an acknowledgement is never lost with a
connection: it waits here until the server has taken it.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unstuck.fields import Fields
from unstuck.transport import scripts
from unstuck.transport.keys import GROUP

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 1000
"""Acknowledgements in one command."""

STEPS_AT_ONCE = 100
"""Steps in one pipeline; another one may have to wait for it."""


def tag_of(stream: str, entry: str) -> str:
    """The delivery tag of an entry; the id of an entry is never used again."""
    return f"{entry} {stream}"


def entry_of(tag: str) -> tuple[str, str]:
    """The stream and the id in it."""
    entry, _, stream = tag.partition(" ")
    return stream, entry


@dataclass(frozen=True, slots=True)
class Step:
    """Something to be done to a reserved message as one step on the server."""

    tag: str
    script: scripts.Script
    arguments: Sequence[Any] = ()

    def command(self) -> tuple[Any, ...]:
        """As it is sent."""
        stream, entry = entry_of(self.tag)
        return ("EVAL", self.script.text, 0, stream, entry, *self.arguments)


class Desk:
    """What one process has reserved, and what it has yet to say of it.

    Safe to use from any thread.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        """The name that the server knows this process by."""

        self.reserved: set[str] = set()
        """The tags of what is in our hands."""

        self.kept: set[str] = set()
        """Those of them whose channel is closed."""

        self.zombies = 0
        """How many endings were dropped because the message was somebody else's."""

        self.lease_seconds = 0.0
        self.renewed_at = 0.0
        """When the lease was renewed last, on the monotonic clock."""

        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.wake: Callable[[], object] = lambda: None
        """Has what is to be said be said soon, by another thread."""

        self._loop_thread: int | None = None
        self._acks: deque[str] = deque()
        self._steps: deque[Step] = deque()
        self._leaving: set[str] = set()
        """What the server has not yet been told of, as far as we know."""

        self._away_at = -math.inf
        """When it was found last that others may have been given what was for us."""

        self._lost: set[str] = set()
        self._uncertain: set[str] = set()
        """What it may have been told of before."""

        self._changes = threading.Lock()
        self._speaking = threading.Lock()

    # Reserved messages.

    def reserve(self, tag: str, asked_at: float = math.inf) -> bool:
        """A message came in; ``False`` if it has been given back meanwhile, or may have
        been given to others since it was asked for, by the monotonic clock."""
        with self._changes:
            if tag in self._lost:
                self._lost.discard(tag)
                return False
            if asked_at < self._away_at:
                return False
            self.reserved.add(tag)
        return True

    @property
    def has_lease(self) -> bool:
        """Whether nobody can have taken us for dead, as far as can be known here."""
        return time.monotonic() - self.renewed_at < self.lease_seconds

    def is_ours(self, tag: str) -> bool:
        """Whether nobody else can have the message now, as far as can be known here."""
        return self.has_lease and tag in self.reserved

    def was_away(self) -> list[str]:
        """Others may have been given what is in hand, which this returns, and what is on
        its way: that is not taken for ours."""
        with self._changes:
            self._away_at = time.monotonic()
            return list(self.reserved)

    def lose(self, tags: Iterable[str]) -> None:
        """These were given to others while we were away, where they are in hand still."""
        with self._changes:
            tags = self.reserved.intersection(tags)
            self._lost |= tags
            self.reserved -= tags
            self.kept -= tags

    def lose_unless_known(self, tag: str) -> bool:
        """What has not reached us yet shall not, from now on; ``False`` if it has."""
        with self._changes:
            if tag in self.reserved or tag in self._leaving:
                return False
            self._lost.add(tag)
        return True

    # What is to be said of them.

    def ack(self, tag: str) -> None:
        """It has come to its end; nothing if that, or anything else, was said before."""
        if self._let_go(tag):
            self._acks.append(tag)
            self._say_soon()

    def step(self, step: Step) -> None:
        """Have something done to it; it is not ours any more."""
        if self._let_go(step.tag):
            self._steps.append(step)
            self._say_soon()

    def give_back(self, tag: str) -> None:
        """Let others have it."""
        self.step(Step(tag, scripts.GIVE_BACK))

    def _let_go(self, tag: str) -> bool:
        with self._changes:
            self.kept.discard(tag)
            ours, lost = tag in self.reserved, tag in self._lost
            self.reserved.discard(tag)
            self._lost.discard(tag)
            if ours:
                self._leaving.add(tag)
        if lost:
            self._count_zombies(1)
        return ours

    @property
    def has_something_to_say(self) -> bool:
        """Whether the server has yet to be told of anything."""
        return bool(self._acks or self._steps)

    def _say_soon(self) -> None:
        if self._loop_thread is None:
            self.wake()
        elif self._loop_thread != threading.get_ident():
            os.eventfd_write(self.bell, 1)

    # The event loop.

    def belong_to_loop(self, loop: Any) -> None:
        """The event loop of this thread takes along what is to be said."""
        self._loop_thread = threading.get_ident()
        loop.add_reader(self.bell, self._hear_bell)

    def _hear_bell(self) -> None:
        os.eventfd_read(self.bell)

    # Saying it.

    def take_acks(self) -> list[str]:
        """What is to be acknowledged; whoever takes it says it or puts it back."""
        taken: list[str] = []
        try:
            while self._acks and len(taken) < MOST_AT_ONCE:
                taken.append(self._acks.popleft())
        except IndexError:
            pass  # Another thread has taken the last one: what we have is ours to say.
        return taken

    def put_back_acks(self, tags: Iterable[str]) -> None:
        """They could not be said, or it is not known whether they were."""
        tags = list(tags)
        self._uncertain.update(tags)
        self._acks.extend(tags)

    def said(self, tags: Collection[str], removed: int) -> None:
        """The server was told, and has removed so many of these."""
        self._leaving.difference_update(tags)
        certain = len(tags) - len(self._uncertain.intersection(tags))
        self._uncertain.difference_update(tags)
        if removed < certain:
            self._count_zombies(certain - removed)

    def _count_zombies(self, number: int) -> None:
        self.zombies += number
        logger.warning(
            "Messages had been given to others when they were acknowledged here, "
            "which is dropped: %(fields)s",
            Fields(messages=number),
        )

    def flush(self, client: Any) -> None:
        """Say all that is to be said by now, not what comes in the meantime.

        Raises ``RedisError`` and says the rest later.
        """
        with self._speaking:
            for _ in range(0, len(self._acks), MOST_AT_ONCE):
                self._flush_acks(client, self.take_acks())
            for _ in range(0, len(self._steps), STEPS_AT_ONCE):
                self._flush_steps(client)

    def _flush_acks(self, client: Any, acks: list[str]) -> None:
        with client.pipeline(transaction=False) as pipe:
            for command in ack_commands(acks):
                pipe.execute_command(*command)
            try:
                replies = pipe.execute()
            except BaseException:
                self.put_back_acks(acks)
                raise
        self.said(acks, sum(replies[::2]))

    def _flush_steps(self, client: Any) -> None:
        steps = [self._steps.popleft() for _ in range(STEPS_AT_ONCE) if self._steps]
        with client.pipeline(transaction=False) as pipe:
            for step in steps:
                pipe.execute_command(*step.command())
            try:
                answers = pipe.execute(raise_on_error=False)
            except BaseException:
                self._uncertain.update(step.tag for step in steps)
                self._steps.extendleft(reversed(steps))
                raise
        refused = None
        for step, answer in zip(steps, answers, strict=True):
            if not isinstance(answer, Exception):
                self.said([step.tag], answer)
            elif _is_permanent(answer):
                # Nobody could ever take it: it stays reserved until we are gone.
                logger.error(
                    "A message cannot be settled: %(fields)s",
                    Fields(message=step.tag, error=answer),
                )
                self.said([step.tag], 1)
            else:
                self._steps.append(step)
                refused = answer
        if refused:
            raise refused


def ack_commands(tags: Iterable[str]) -> list[tuple[str, ...]]:
    """Two commands for each stream; the first tells how many were still ours."""
    by_stream: dict[str, list[str]] = {}
    for tag in tags:
        stream, entry = entry_of(tag)
        by_stream.setdefault(stream, []).append(entry)
    commands: list[tuple[str, ...]] = []
    for stream, entries in by_stream.items():
        commands.append(("XACK", stream, GROUP, *entries))
        commands.append(("XDEL", stream, *entries))
    return commands


def _is_permanent(error: Exception) -> bool:
    return "WRONGTYPE" in str(error)
