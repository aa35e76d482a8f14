"""Where main's time goes while it hands out tasks that do nothing.

    .venv/bin/python benchmarks/profile_main.py [--tasks 40000] [--seconds 3] [--json]

Main is what bounds a node: each message and each answer passes through it. A backlog is
drained as in ``throughput.py`` by a main under Python's own profiler (cProfile), which
makes it slower, and calls of small functions dearer than they are: read the shares as shares.
What C code does counts for who has called it.
"""

from __future__ import annotations

import argparse
import json
import pstats
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arena import Terms
from backlog import Ground, Side
from contestants import OURS, PROCESSES, celery_side

PROFILER = """
import cProfile
from celery.signals import worker_ready

@worker_ready.connect
def watch(sender=None, **_):
    profile = cProfile.Profile()

    def tell():
        profile.disable()
        profile.dump_stats({file!r})

    sender.timer.call_after({seconds}, tell)
    profile.enable()
"""

STAGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "reading from the server, and its connection": (
        ("transport/redis.py", "on_poll_start"),
        ("transport/redis.py", "on_readable"),
    ),
    "from an entry to a message": (
        ("transport/channel.py", "_deliver_entry"),
        ("kombu/transport/virtual/base.py", "_deliver"),
    ),
    "from a message to a request (Celery)": (
        ("celery/worker/consumer/consumer.py", "on_task_received"),
    ),
    "from a request to a job": (("worker/request.py", "execute_using_pool"),),
    "to a child": (("pool/crew.py", "dispatch"),),
    "an answer of a child": (("pool/crew.py", "_hear"),),
    "the end: verdict, acknowledgement, count": (("worker/request.py", "on_success"),),
}
"""The functions that each stage begins with; what one of them calls that belongs to another
stage is the other's."""

THE_REST = "the event loop, and waiting"
LOOP = ("create_loop", "turn", "_turn", "fire_timers", "__call__")
"""Functions of the event loop that call whatever there is to do."""

Function = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Found:
    """Microseconds a task of each stage, under the profiler."""

    tasks: int
    stages: Mapping[str, float]

    @property
    def whole(self) -> float:
        """Microseconds a task in all."""
        return sum(self.stages.values())

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        shares = {name: round(v / self.whole, 3) for name, v in self.stages.items()}
        return {"tasks": self.tasks, "shares": shares}


def measured(tasks: int, seconds: float) -> Found:
    """Drain a backlog, and read the profile of it."""
    terms = Terms(concurrency=PROCESSES)
    with (
        tempfile.TemporaryDirectory(prefix="profile-") as name,
        Ground.open() as ground,
    ):
        file = Path(name) / "main.prof"
        side = _profiled(celery_side(OURS, terms), file, seconds)
        ground.store(side, tasks)
        ground.release(side)
        with ground.crew(side) as crew:
            crew.wait_for(tasks)
        if not file.exists():
            raise SystemExit("All was drained too soon: give it more --tasks")
        return found_in(pstats.Stats(str(file)))


def _profiled(side: Side, file: Path, seconds: float) -> Side:
    source = side.source + PROFILER.format(file=str(file), seconds=seconds)
    return replace(side, source=source)


def found_in(stats: pstats.Stats) -> Found:
    """The time of each stage: of its functions, and of what is called from there."""
    table: Mapping[Function, Any] = stats.stats  # type: ignore[attr-defined]
    tasks = sum(
        calls for (_, _, name), (_, calls, *_) in table.items() if name == "_on_done"
    )
    seconds: Counter[str] = Counter()
    for function, (_, _, _, whole, callers) in table.items():
        stage = _stage_of(function)
        if stage is None:
            continue
        seconds[stage] += whole
        for caller, (_, _, _, from_there) in callers.items():
            seconds[_stage_that_calls(caller, table, frozenset())] -= from_there
    whole = sum(own for _, _, own, _, _ in table.values())
    seconds[THE_REST] = whole - sum(v for k, v in seconds.items() if k != THE_REST)
    names = [*STAGES, THE_REST]
    return Found(tasks, {name: seconds[name] / tasks * 1e6 for name in names})


def _stage_of(function: Function) -> str | None:
    file, _, name = function
    for stage, begins in STAGES.items():
        if any(file.endswith(path) and name == begin for path, begin in begins):
            return stage
    return None


def _stage_that_calls(
    function: Function, table: Mapping[Function, Any], seen: frozenset[Function]
) -> str:
    """The nearest stage above a function, by who has called it most."""
    if stage := _stage_of(function):
        return stage
    if function[2] in LOOP:
        return THE_REST
    callers = table.get(function, (0, 0, 0, 0, {}))[4]
    ways = {c: facts[3] for c, facts in callers.items() if c not in seen}
    if not ways:
        return THE_REST
    most = max(ways, key=lambda caller: ways[caller])
    return _stage_that_calls(most, table, seen | {function})


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=40_000, help="default 40000")
    parser.add_argument("--seconds", type=float, default=3.0, help="default 3")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    options = parser.parse_args()
    found = measured(options.tasks, options.seconds)
    if options.json:
        print(json.dumps(found.document(), indent=2))
        return
    print(f"{found.tasks} tasks")
    for name, microseconds in found.stages.items():
        print(f"{name:50}{microseconds / found.whole:8.0%}")


if __name__ == "__main__":
    main()
