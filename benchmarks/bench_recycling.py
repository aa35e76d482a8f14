"""What it costs to replace each child after 100 tasks.

    .venv/bin/python benchmarks/bench_recycling.py [--tasks 2000] [--rounds 6]

The same tasks run with 100 tasks a child and with any number of them, on both sides.
Wanted: a loss of at most 25 %.
"""

from __future__ import annotations

import statistics

import arena
from arena import Arena, Figure, Terms
from bench_throughput import measure

TASKS_PER_CHILD = 100


def main() -> None:
    """Measure and print."""
    options = arena.options(__doc__, tasks=2000, rounds=6, prefetch=4, concurrency=4)
    kept = Terms(concurrency=options.concurrency, prefetch=options.prefetch)
    recycled = Terms(
        concurrency=options.concurrency,
        prefetch=options.prefetch,
        tasks_per_child=TASKS_PER_CHILD,
    )
    rates = {
        kept: Figure("tasks/s, children stay", max),
        recycled: Figure(f"tasks/s, {TASKS_PER_CHILD} tasks a child", max),
    }
    contestants = [(side, terms) for terms in rates for side in arena.SIDES]
    with (
        Arena.open() as place,
        place.workers(kept) as stay,
        place.workers(recycled) as go,
    ):
        workers = {kept: stay, recycled: go}
        place.store(options.tasks)
        for side, terms in arena.turns(options.rounds, *contestants):
            rate, _ = measure(place, workers[terms][side], options.tasks)
            rates[terms].add(side, rate)
        said = (
            f"-c {options.concurrency}, {options.tasks} tasks, {options.rounds} rounds"
        )
        arena.report(place, recycled, said, rates.values())
    print()
    for side in arena.SIDES:
        best = 1 - rates[recycled].best(side) / rates[kept].best(side)
        pairs = zip(rates[recycled].rounds[side], rates[kept].rounds[side], strict=True)
        by_round = statistics.median(
            1 - with_it / without for with_it, without in pairs
        )
        print(f"{side:8} loses {best:4.0%} at best, {by_round:4.0%} round by round")
    print("Wanted of unstuck: at most 25 %.")


if __name__ == "__main__":
    main()
