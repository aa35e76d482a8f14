"""How long a task waits from ``delay()`` to its start when there is little to do.

    .venv/bin/python benchmarks/bench_latency.py [--seconds 20] [--rounds 3]

50 tasks a second are published, evenly; each says when it began.
Wanted: a 99th percentile that is no worse than Celery's.
"""

from __future__ import annotations

import statistics
import time

import arena
from arena import Arena, Figure, Terms, Worker

TASKS_PER_SECOND = 50


def measure(place: Arena, worker: Worker, seconds: int) -> list[float]:
    """The milliseconds that each task has waited."""
    worker.forget()
    begin = time.monotonic()
    sent = {}
    for number in range(seconds * TASKS_PER_SECOND):
        at = begin + number / TASKS_PER_SECOND
        time.sleep(max(0.0, at - time.monotonic()))
        sent[str(number)] = time.monotonic()
        place.send(worker, arena.MARK, str(number))
    worker.wait_for(len(sent))
    return [(mark.at - sent[mark.word]) * 1000 for mark in worker.marks()]


def percentile(values: list[float], hundredth: int) -> float:
    """The value that so many of a hundred do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[hundredth - 1]


def main() -> None:
    """Measure and print."""
    options = arena.options(__doc__, seconds=20, rounds=3, prefetch=4, concurrency=4)
    terms = Terms(concurrency=options.concurrency, prefetch=options.prefetch)
    median, late, longest = (
        Figure(f"{name} ms from sending to start", digits=2)
        for name in ("p50", "p99", "longest")
    )
    with Arena.open() as place, place.workers(terms) as workers:
        for side in arena.turns(options.rounds, *arena.SIDES):
            waits = measure(place, workers[side], options.seconds)
            median.add(side, percentile(waits, 50))
            late.add(side, percentile(waits, 99))
            longest.add(side, max(waits))
        said = f"-c {options.concurrency}, {TASKS_PER_SECOND} tasks/s for {options.seconds} s, {options.rounds} rounds"
        arena.report(place, terms, said, [median, late, longest])
    print("\nWanted of p99: a ratio of at most 1.00.")


if __name__ == "__main__":
    main()
