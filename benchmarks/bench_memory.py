"""The memory of a node with 4 children that have worked.

    .venv/bin/python benchmarks/bench_memory.py [--tasks 800] [--rounds 2]

PSS: what several processes share counts in parts that add up to one. Once in an app that
is one file, once in a Django project whose admin is loaded and whose tasks query its
database. Wanted: no more than Celery's, of the children as of the whole tree.
The recorder is no part of it: it belongs to the archive, and is told apart.
"""

from __future__ import annotations

import statistics
import time

import arena
from arena import Arena, Figure, Terms

REST_SECONDS = 2


def measure(place: Arena, side: str, terms: Terms, tasks: int) -> dict[str, float]:
    """MiB by role, after so many tasks; of the children how many there are as well."""
    task = arena.QUERY if terms.django else arena.MARK
    with place.worker(side, terms) as worker:
        worker.forget()
        for number in range(tasks):
            place.send(worker, task, str(number))
        worker.wait_for(tasks)
        time.sleep(REST_SECONDS)
        roles = worker.processes()
        return {
            **{role: arena.pss_mib(pids) for role, pids in roles.items()},
            "count": len(roles["children"]),
        }


def figures_of(terms: Terms, taken: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """The lines of the table for one app."""
    where = "Django project" if terms.django else "one file"
    tree = Figure(f"{where}: the tree, MiB", digits=1)
    children = Figure("  its children (ours: a spare too)", digits=1)
    each = Figure("  one child", digits=1)
    rest = Figure("  main (ours: and the supervisor)", digits=1)
    for side, rounds in taken.items():
        for mib in rounds:
            above = mib["main"] + mib.get("supervisor", 0.0)
            tree.add(side, mib["children"] + above)
            children.add(side, mib["children"])
            each.add(side, mib["children"] / mib["count"])
            rest.add(side, above)
    return [tree, children, each, rest]


def main() -> None:
    """Measure and print."""
    options = arena.options(__doc__, tasks=800, rounds=2, prefetch=4, concurrency=4)
    figures: list[Figure] = []
    with Arena.open() as place:
        for django in (False, True):
            terms = Terms(
                concurrency=options.concurrency,
                prefetch=options.prefetch,
                django=django,
            )
            taken: dict[str, list[dict[str, float]]] = {s: [] for s in arena.SIDES}
            for side in arena.turns(options.rounds, *arena.SIDES):
                taken[side].append(measure(place, side, terms, options.tasks))
            figures += figures_of(terms, taken)
        said = f"-c {options.concurrency}, after {options.tasks} tasks, {options.rounds} rounds"
        arena.report(place, terms, said, figures)
    apart = taken["unstuck"]
    recorder = statistics.median(mib["recorder"] for mib in apart)
    print(
        f"\nNot counted above: the recorder of the Django project, {recorder:.1f} MiB. "
        f"With it the ratio of the trees is {_ratio_with_recorder(figures, recorder)}."
    )
    print("Wanted of the tree and of its children: a ratio of at most 1.00.")


def _ratio_with_recorder(figures: list[Figure], recorder: float) -> str:
    tree = next(figure for figure in figures if "Django project" in figure.name)
    return f"{(tree.median('unstuck') + recorder) / tree.median('celery'):.2f}"


if __name__ == "__main__":
    main()
