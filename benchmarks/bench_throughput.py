"""What our pool and main do to tasks a second, on one and the same stock transport.

    .venv/bin/python benchmarks/bench_throughput.py [--tasks 1500] [--rounds 8]

Tasks that do nothing, and what one costs on the processor, with ``redis://`` for both
sides; ``throughput.py`` has our own transport, other queues and publishing. All tasks come
into the queue at once; from the start of the first to that of the last.
Wanted: at least what Celery has.
"""

from __future__ import annotations

import arena
from arena import Arena, Cpu, Figure, Terms, Worker

MICROSECONDS = 1e6


def measure(place: Arena, worker: Worker, tasks: int) -> tuple[float, Cpu]:
    """Tasks a second, and what all of them took of the processor."""
    worker.forget()
    before = worker.cpu_seconds()
    place.release(worker)
    worker.wait_for(tasks)
    times = [mark.at for mark in worker.marks()]
    return tasks / (max(times) - min(times)), worker.cpu_seconds() - before


def main() -> None:
    """Measure and print."""
    options = arena.options(__doc__, tasks=1500, rounds=8, prefetch=4)
    figures = []
    with Arena.open() as place:
        place.store(options.tasks)
        for concurrency in (4, 2):
            terms = Terms(concurrency=concurrency, prefetch=options.prefetch)
            rate = Figure(f"tasks/s, -c {concurrency}", max)
            of_main = Figure("  main, us a task")
            of_rest = Figure("  children and supervisor, us a task")
            with place.workers(terms) as workers:
                for side in arena.turns(options.rounds, *arena.SIDES):
                    measured, cpu = measure(place, workers[side], options.tasks)
                    rate.add(side, measured)
                    of_main.add(side, cpu.main * MICROSECONDS / options.tasks)
                    of_rest.add(side, cpu.rest * MICROSECONDS / options.tasks)
            figures += [rate, of_main, of_rest]
        said = f"{options.tasks} tasks, {options.rounds} rounds"
        arena.report(place, terms, said, figures)
    print("\nWanted of tasks/s: a ratio of at least 1.00.")


if __name__ == "__main__":
    main()
