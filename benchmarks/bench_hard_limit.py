"""How soon a slot serves again after its task was killed at its hard limit.

    .venv/bin/python benchmarks/bench_hard_limit.py [--kills 6] [--rounds 3]

``-c 1``. A task with ``time_limit=1`` hangs, the next one waits behind it: from the
limit (the start of the first and 1 s) to the start of the next.
Wanted: at most 200 ms at the median of all.
"""

from __future__ import annotations

import statistics

import arena
from arena import Arena, Figure, Terms

LIMIT_SECONDS = 1.0
WANTED_MS = 200


def measure(place: Arena, side: str, terms: Terms, kills: int) -> list[float]:
    """The milliseconds of each kill."""
    taken = []
    with place.worker(side, terms) as worker:
        for number in range(kills):
            place.send(arena.HANG, f"hang-{number}")
            place.send(arena.MARK, f"next-{number}")
            following = worker.wait_for_word(f"next-{number}")
            hung = worker.wait_for_word(f"hang-{number}")
            taken.append((following.at - hung.at - LIMIT_SECONDS) * 1000)
    return taken


def main() -> None:
    """Measure and print."""
    options = arena.options(__doc__, kills=6, rounds=3, prefetch=4)
    # Celery begins to count to the hard limit when the soft one has passed.
    terms = Terms(concurrency=1, prefetch=options.prefetch, soft_limit=None)
    figures = {
        statistics.median: Figure("median ms from the limit to the next task"),
        max: Figure("longest ms"),
    }
    every: dict[str, list[float]] = {side: [] for side in arena.SIDES}
    with Arena.open() as place:
        for side in arena.turns(options.rounds, *arena.SIDES):
            taken = measure(place, side, terms, options.kills)
            every[side] += taken
            for of_all, figure in figures.items():
                figure.add(side, of_all(taken))
        said = f"{options.rounds} rounds of {options.kills} kills"
        arena.report(place, [str(terms), said], figures.values())
    print()
    for side, taken in every.items():
        print(
            f"{side:8} median {statistics.median(taken):6.0f} ms, longest "
            f"{max(taken):6.0f} ms, of {len(taken)} kills"
        )
    print(f"Wanted of unstuck: a median of at most {WANTED_MS} ms.")


if __name__ == "__main__":
    main()
