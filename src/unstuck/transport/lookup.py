"""Looking at the messages of a queue, and at those that wait for their time.

Nothing is taken by looking, and every look is bounded: by a number of messages, or by time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError

from unstuck.transport.census import position
from unstuck.transport.keys import GROUP, Keys
from unstuck.transport.scripts import TAKE_DELAYED

AT_ONCE = 500
WHOLE_AT_ONCE = 20
"""Of messages that are read as a whole: one may have megabytes."""

GLOB = str.maketrans({char: f"\\{char}" for char in "\\*?[]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Delayed:
    """A message whose time has not come."""

    queue: str
    due_at: float
    """In seconds since the epoch, by the clock of the server."""

    content: str
    """The message as JSON."""

    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A message in a queue: waiting at a place, from 1 on, or in the hands of a node."""

    content: str
    place: int | None = None
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was found among the messages of a queue, and how many were looked at."""

    found: Sequence[Sighting]
    looked_at: int
    is_whole: bool


def queues_with_delayed(client: Any, keys: Keys) -> list[str]:
    """The queues that have delayed messages, those that are due first in front."""
    names = client.execute_command("ZRANGE", keys.due, 0, -1)
    return [bytes_to_str(name) for name in names]


def count_delayed(client: Any, keys: Keys, queues: Sequence[str]) -> dict[str, int]:
    """How many delayed messages each queue has."""
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.execute_command("ZCARD", keys.delayed(queue))
        return dict(zip(queues, pipe.execute(), strict=True))


def first_delayed(client: Any, keys: Keys, queue: str, most: int) -> Iterator[Delayed]:
    """The delayed messages of a queue that are due first, read a few at a time.

    The first alone: it says how urgent the queue is. What becomes due meanwhile is skipped,
    and nothing else.
    """
    read, score, with_score = 0, b"-inf", 0
    number = min(1, most)
    while number:
        flat = client.execute_command(
            *("ZRANGEBYSCORE", keys.delayed(queue), score, b"+inf", "WITHSCORES"),
            *("LIMIT", with_score, number),
        )
        pairs = list(_pairs(flat))
        for member, at in pairs:
            with_score = with_score + 1 if at == score else 1
            score = at
            yield _delayed(queue, member, at)
        read += len(pairs)
        is_last = len(pairs) < number
        number = 0 if is_last else min(WHOLE_AT_ONCE, most - read)


def delayed_with(
    client: Any, keys: Keys, queue: str, text: str, until: float
) -> tuple[list[Delayed], bool]:
    """The delayed messages of a queue that have a text in them; whether those are all.

    ``until``: the instant of ``time.monotonic()`` at which to give up.
    """
    found: list[Delayed] = []
    cursor = b"0"
    pattern = f"*{text.translate(GLOB)}*"
    while time.monotonic() < until:
        cursor, flat = client.execute_command(
            "ZSCAN", keys.delayed(queue), cursor, "MATCH", pattern, "COUNT", AT_ONCE
        )
        found += [_delayed(queue, *pair) for pair in _pairs(flat)]
        if cursor == b"0":
            return found, True
    return found, False


def taking(keys: Keys, delayed: Delayed, instead: str | None) -> tuple[Any, ...]:
    """The command that takes a delayed message away, and puts another in its place."""
    stream = keys.stream(delayed.queue, delayed.step)
    member = f"{delayed.step}|{delayed.content}"
    head = ("EVAL", TAKE_DELAYED.text, 2, keys.delayed(delayed.queue), stream)
    return (*head, member, instead or "")


def search(
    client: Any, streams: Sequence[str], text: str, most: int, until: float
) -> Search:
    """The messages of a queue that have a text in them, in the order they are served in.

    Gives up after ``most`` messages, and at the instant ``until``.
    """
    wanted = text.encode()
    found: list[Sighting] = []
    looked_at = 0
    for content in _waiting(client, streams):
        if looked_at >= most or time.monotonic() > until:
            return Search(found=found, looked_at=looked_at, is_whole=False)
        looked_at += 1
        if wanted in content:
            said = content.decode(errors="replace")
            found.append(Sighting(content=said, place=looked_at))
    for number, (node, content) in enumerate(_in_hand(client, streams)):
        if number >= most or time.monotonic() > until:
            return Search(found=found, looked_at=looked_at, is_whole=False)
        if wanted in content:
            found.append(Sighting(content=content.decode(errors="replace"), node=node))
    return Search(found=found, looked_at=looked_at, is_whole=True)


def _waiting(client: Any, streams: Sequence[str]) -> Iterator[bytes]:
    for stream in streams:
        groups = _asked(client, "XINFO", "GROUPS", stream)
        after = position(groups)[0]
        while entries := _asked(client, "XRANGE", stream, after, "+", "COUNT", AT_ONCE):
            yield from (fields[1] for _, fields in entries)
            after = f"({bytes_to_str(entries[-1][0])}"


def _in_hand(client: Any, streams: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The node and the content of what is reserved, of each stream the oldest first."""
    for stream in streams:
        after = "-"
        while pending := _asked(
            client, "XPENDING", stream, GROUP, after, "+", WHOLE_AT_ONCE
        ):
            with client.pipeline(transaction=False) as pipe:
                for entry, *_ in pending:
                    pipe.execute_command("XRANGE", stream, entry, entry)
                answers = pipe.execute()
            for (_, node, *_), entries in zip(pending, answers, strict=True):
                for _, fields in entries:
                    # Of a main that was started anew: NODE#ID.NUMBER.
                    yield bytes_to_str(node).partition("#")[0], fields[1]
            after = f"({bytes_to_str(pending[-1][0])}"


def _asked(client: Any, *command: Any) -> Any:
    """What the server says; nothing of a stream that is not there."""
    try:
        return client.execute_command(*command)
    except ResponseError as error:
        if "no such key" in str(error) or "NOGROUP" in str(error):
            return []
        raise


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _delayed(queue: str, member: bytes, score: bytes) -> Delayed:
    step, _, content = bytes_to_str(member).partition("|")
    return Delayed(queue=queue, due_at=float(score) / 1000, content=content, step=step)
