"""Counting what is in a queue, and in whose hands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from unstuck.transport.keys import GROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What there is of one queue."""

    waiting: int
    """Messages that nobody has."""

    oldest_seconds: float | None
    """How long the first of them has waited, by the clock of the server."""

    reserved: Mapping[str, int]
    """How many messages each node has in hand."""

    delayed: int
    """Messages whose time has not come."""


def take(
    client: Any, streams: Sequence[str], lists: Sequence[str], delayed: str
) -> Census:
    """Count a queue: its streams, the lists of kombu's own transport, what is delayed."""
    with client.pipeline(transaction=False) as pipe:
        pipe.execute_command("TIME")
        pipe.execute_command("ZCARD", delayed)
        for name in lists:
            pipe.execute_command("LLEN", name)
        for name in streams:
            pipe.execute_command("XLEN", name)
            pipe.execute_command("XINFO", "GROUPS", name)
            pipe.execute_command("XINFO", "CONSUMERS", name, GROUP)
        (seconds, micros), due, *answers = pipe.execute(raise_on_error=False)
    now = int(seconds) + int(micros) / 1e6
    waiting = sum(answers[: len(lists)])
    reserved: Counter[str] = Counter()
    firsts = []
    triples = answers[len(lists) :]
    for place, name in enumerate(streams):
        length, groups, readers = triples[3 * place : 3 * place + 3]
        after, pending = position(groups)
        reserved.update(_in_hand(readers))
        waiting += length - pending
        if length > pending:
            firsts.append(_first(client, name, after))
    known = [at for at in firsts if at is not None]
    return Census(
        waiting=max(0, waiting),
        oldest_seconds=max(0.0, now - min(known)) if known else None,
        reserved=dict(reserved),
        delayed=int(due),
    )


def position(groups: Any) -> tuple[str, int]:
    """Up to where a stream was handed out, and how much of that is in hand."""
    if isinstance(groups, ResponseError) or not groups:
        return "-", 0
    facts = _facts(groups[0])
    return "(" + facts[b"last-delivered-id"].decode(), int(facts[b"pending"])


def _in_hand(readers: Any) -> dict[str, int]:
    if isinstance(readers, ResponseError):
        return {}
    found = [_facts(reader) for reader in readers]
    return {f[b"name"].decode(): f[b"pending"] for f in found if f[b"pending"]}


def _first(client: Any, stream: str, after: str) -> float | None:
    """When the first that waits was put there, in seconds since the epoch."""
    entries = client.execute_command("XRANGE", stream, after, "+", "COUNT", 1)
    return int(entries[0][0].split(b"-")[0]) / 1000 if entries else None


def _facts(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
