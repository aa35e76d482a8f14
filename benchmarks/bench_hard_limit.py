"""How soon a slot serves again after its task was killed at its hard limit.

    .venv/bin/python benchmarks/bench_hard_limit.py [--kills 18]

``-c 1``. A task with ``time_limit=1`` hangs, the next one waits behind it: from the
limit (the start of the first and 1 s) to the start of the next.
Wanted: at most 200 ms at the median.
"""

from __future__ import annotations

import arena
from arena import Arena, Figure, Terms, Worker

LIMIT_SECONDS = 1.0
WANTED_MS = 200


def measure(place: Arena, worker: Worker) -> float:
    """The milliseconds after one kill."""
    worker.forget()
    place.send(worker, arena.HANG, "hang")
    place.send(worker, arena.MARK, "next")
    worker.wait_for(2)
    began = {mark.word: mark.at for mark in worker.marks()}
    return (began["next"] - began["hang"] - LIMIT_SECONDS) * 1000


def main() -> None:
    """Measure and print."""
    options = arena.options(__doc__, kills=18, prefetch=4)
    # Celery begins to count to the hard limit when the soft one has passed.
    terms = Terms(concurrency=1, prefetch=options.prefetch, soft_limit=None)
    waits = Figure("ms from the limit to the next task")
    with Arena.open() as place, place.workers(terms) as workers:
        for side in arena.turns(options.kills, *arena.SIDES):
            waits.add(side, measure(place, workers[side]))
        arena.report(place, terms, f"-c 1, {options.kills} kills", [waits])
    print()
    for side, taken in waits.rounds.items():
        print(f"{side:8} took {max(taken):.0f} ms at most")
    print(f"Wanted of unstuck: a median of at most {WANTED_MS} ms.")


if __name__ == "__main__":
    main()
