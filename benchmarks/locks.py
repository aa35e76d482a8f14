"""What an uncontended lock costs: ``lock()`` beside redis-py's own ``Lock``, in turn.

    .venv/bin/python benchmarks/locks.py [--pairs 300] [--rounds 101]

Both take and give back a lock of a lease of 30 s, in one process, on a Valkey of their own.
Wanted: a ratio of at most 1.10, and two round trips.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import arena
import redis

import unstuck.app  # noqa: F401 - names our transport to kombu
from unstuck import lock
from unstuck.dev.ports import free_port
from unstuck.dev.valkey import ValkeyServer
from unstuck.locks import backends

LEASE_SECONDS = 30


def take_ours() -> None:
    """By ``with lock()``."""
    with lock("bench", lease=LEASE_SECONDS):
        pass


def taker_of(client: redis.Redis) -> Callable[[], None]:
    """By redis-py's ``with Lock``."""

    def take() -> None:
        with client.lock("bench", timeout=LEASE_SECONDS):
            pass

    return take


def microseconds(take: Callable[[], None], pairs: int) -> float:
    """What one pair takes, on average of so many."""
    take()
    begin = time.perf_counter()
    for _ in range(pairs):
        take()
    return (time.perf_counter() - begin) / pairs * 1e6


def round_trips(client: redis.Redis, take: Callable[[], None], pairs: int) -> float:
    """How often the server reads something for one pair."""

    def reads() -> int:
        return int(client.info("stats")["total_reads_processed"])

    take()
    before = reads()
    for _ in range(pairs):
        take()
    return (reads() - before - 1) / pairs


def measure(url: str, pairs: int, rounds: int) -> None:
    """Measure and print."""
    backends.use(backends.at(url))
    client = redis.Redis.from_url(url)
    sides = {"redis-py": taker_of(client), "unstuck": take_ours}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for side in arena.turns(rounds, *sides):
        found[side].append(microseconds(sides[side], pairs))
    print(arena.surroundings())
    print(arena.packages())
    print(f"{pairs} pairs of take and give back, {rounds} rounds\n")
    for side, values in found.items():
        trips = round_trips(client, sides[side], 100)
        print(
            f"{side:10} median {statistics.median(values):8.1f} µs   "
            f"best {min(values):8.1f} µs   {trips:.2f} round trips"
        )
    by_round = zip(found["unstuck"], found["redis-py"], strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in by_round)
    print(f"\nBy round, ours to theirs: {ratio:.2f}. Wanted: at most 1.10.")


def main() -> None:
    """On a server of its own."""
    options = arena.options(__doc__, pairs=300, rounds=101)
    with tempfile.TemporaryDirectory() as directory:
        server = ValkeyServer(Path(directory), free_port(), append_only=False)
        server.start()
        try:
            measure(server.url(0), options.pairs, options.rounds)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
