"""How fast a backlog drains, by its depth, by children and by nodes; what a task costs.

    .venv/bin/python benchmarks/scaling.py [--seconds 3] [--rounds 3] [--quick] [--json]

Rates: the queue is held at its depth, what has run is put in again by the server itself,
and what runs within some seconds is counted as in ``throughput.py``; what the server takes
of the processor has the filling in it.
What a task costs: a backlog that is not filled up again, from when a tenth of it has run
until 95 % has, by what INFO says; publishing is not in it, commands within scripts are.
Stock Celery with the same settings stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import arena
from arena import Terms
from backlog import Crew, Ground, Pace, Sample, Side
from contestants import OURS, PROCESSES, STOCK, celery_side

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
CHILDREN = (1, 2, 4, 8)
NODES = (1, 2, 4)
DEPTH = 10_000
"""Where it is not the depth that is varied."""

WARM_TASKS, WARM_SECONDS = 300, 1.0
AT_ONCE = 5_000
"""Messages that one script adds."""

FLAT = 0.8
"""The slowest depth's rate by the fastest one's."""

COMMANDS = 6
NAME_WIDTH, WIDTH = 26, 10

FILL = """
-- KEYS: a stream. ARGV: the first number, how many, the parts of a message between which
-- its task's id stands. They become messages of tasks with ids of their own.
local parts = {unpack(ARGV, 3)}
for number = ARGV[1], ARGV[1] + ARGV[2] - 1 do
  local id = string.format('00000000-0000-4000-8000-%012x', number)
  redis.call('XADD', KEYS[1], '*', 'm', table.concat(parts, id))
end
"""


@dataclass(frozen=True, slots=True)
class Point:
    """One arrangement of workers and queue."""

    name: str
    depth: int = DEPTH
    children: int = PROCESSES
    nodes: int = 1
    paces: list[Pace] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Tasks a second of every round."""
        return [pace.rate for pace in self.paces]

    @property
    def costs(self) -> tuple[float, float]:
        """Microseconds of the processor that a task takes: of the workers, of the server.

        Busy neighbours change them less than they change the rate.
        """
        return (
            statistics.median(pace.worker_microseconds for pace in self.paces),
            statistics.median(pace.server_microseconds for pace in self.paces),
        )

    @property
    def median(self) -> float:
        """Tasks a second in the round in the middle."""
        return statistics.median(self.rates)

    def __str__(self) -> str:
        return self.name

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "depth": self.depth,
            "children": self.children,
            "nodes": self.nodes,
            "median": round(self.median, 1),
            "rounds": [round(rate, 1) for rate in self.rates],
            "worker_microseconds": round(self.costs[0], 1),
            "server_microseconds": round(self.costs[1], 1),
        }


class Filler:
    """Keeps a queue of ours at its depth."""

    def __init__(self, ground: Ground, side: Side, depth: int) -> None:
        self._client = ground.client()
        self._script = self._client.register_script(FILL)
        ground.clear()
        ground.publish(side, 1)
        self._stream, self._parts = self._template()
        self._depth = depth
        self._added = 1

    def fill(self, done: int) -> None:
        """Put in as many as have run, so that the queue is as deep as it should be."""
        wanted = self._depth + done
        steps = [*range(self._added, wanted, AT_ONCE), wanted]
        for first, after in pairwise(steps):
            self._script(keys=[self._stream], args=[first, after - first, *self._parts])
        self._added = max(self._added, wanted)

    def _template(self) -> tuple[bytes, list[bytes]]:
        """The stream with the one message there is, and what is around its task's id."""
        (stream,) = self._client.scan_iter(_type="STREAM")
        ((_, entry),) = self._client.xrange(stream)
        content = entry[b"m"]
        task_id = json.loads(content)["headers"]["id"]
        return stream, content.split(task_id.encode())


def measure(ground: Ground, point: Point, seconds: int) -> Pace:
    """What one round at one point comes to."""
    terms = Terms(concurrency=point.children)
    side = celery_side(OURS, terms, nodes=point.nodes)
    filler = Filler(ground, side, point.depth)
    filler.fill(0)
    with ground.crew(side) as crew:
        _run(crew, filler, WARM_TASKS * point.nodes)
        begin = _run(crew, filler, seconds=WARM_SECONDS)
        return Pace(begin, _run(crew, filler, seconds=seconds))


def _run(
    crew: Crew, filler: Filler, count: float = float("inf"), **limits: float
) -> Sample:
    return crew.wait_for(count, meanwhile=filler.fill, **limits)


# What a task costs.


def costs(ground: Ground, tasks: int) -> dict[str, Pace]:
    """Ours and stock, each with a backlog of its own."""
    paces = {}
    for package, share in ((OURS, 1.0), (STOCK, 0.25)):
        side = celery_side(package, Terms(concurrency=PROCESSES))
        ground.store(side, int(tasks * share))
        paces[package] = ground.drain(side, int(tasks * share))
    return paces


def _cost(pace: Pace) -> dict[str, Any]:
    return {
        "tasks": pace.tasks,
        "commands": round(pace.commands, 3),
        "input_bytes": round(pace.input_bytes, 1),
        "output_bytes": round(pace.output_bytes, 1),
        "worker_microseconds": round(pace.worker_microseconds, 1),
        "server_microseconds": round(pace.server_microseconds, 1),
        "by_command": {name: round(count, 3) for name, count in pace.calls.items()},
    }


def _show_costs(paces: dict[str, Pace]) -> None:
    heads = ("commands", "bytes in", "bytes out", "worker us", "server us")
    print(f"\n{'A task costs':{NAME_WIDTH}}" + _cells(heads))
    for package, pace in paces.items():
        cost = _cost(pace)
        print(
            f"{package:{NAME_WIDTH}}{cost['commands']:{WIDTH}.2f}"
            + "".join(f"{cost[name]:{WIDTH}.0f}" for name in list(cost)[2:6])
        )
    for package, pace in paces.items():
        most = list(pace.calls.items())[:COMMANDS]
        said = ", ".join(f"{name} {count:.2f}" for name, count in most)
        print(f"  {package}: {said}")


# The report.


def _show_points(name: str, points: Sequence[Point]) -> None:
    heads = ("tasks/s", "least", "most", "to first", "worker us", "server us")
    print(f"\n{name:{NAME_WIDTH}}" + _cells(heads))
    for point in points:
        values = (point.median, min(point.rates), max(point.rates))
        cells = "".join(f"{value:{WIDTH}.0f}" for value in values)
        ratio = point.median / points[0].median
        costs = "".join(f"{cost:{WIDTH}.0f}" for cost in point.costs)
        print(f"{point.name:{NAME_WIDTH}}{cells}{ratio:{WIDTH}.2f}{costs}")


def _cells(words: Sequence[str]) -> str:
    return "".join(f"{word:>{WIDTH}}" for word in words)


def flatness(points: Iterable[Point]) -> float:
    """The slowest by the fastest."""
    medians = [point.median for point in points]
    return min(medians) / max(medians)


def _plan(*, is_quick: bool) -> dict[str, list[Point]]:
    last = -1 if is_quick else None
    depths, children, nodes = DEPTHS[:last], CHILDREN[:last], NODES[:last]
    return {
        "Depth of the queue": [Point(f"{one:,} tasks", depth=one) for one in depths],
        "Children of one node": [Point(f"-c {one}", children=one) for one in children],
        f"Nodes of {PROCESSES} children": [
            Point(f"{one} nodes", nodes=one) for one in nodes
        ],
    }


def _options() -> argparse.Namespace:
    parser = arena.parser_of(__doc__, seconds=3, rounds=3, tasks=12_000)
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    parser.add_argument("--quick", action="store_true", help="one short round of less")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.tasks = 2, 1, 4_000
    return options


def main() -> None:
    """Measure and print."""
    options = _options()
    plan = _plan(is_quick=options.quick)
    depths = next(iter(plan.values()))
    with Ground.open() as ground:
        points = [point for points in plan.values() for point in points]
        for point in arena.turns(options.rounds, *points):
            point.paces.append(measure(ground, point, options.seconds))
        paces = costs(ground, options.tasks)
        versions = f"{arena.packages()}, {ground.server}"
    found = {
        "where": arena.surroundings(),
        "versions": versions,
        "said": f"{options.seconds} s, {options.rounds} rounds; "
        f"{DEPTH:,} tasks and {PROCESSES} children of one node unless it says other; "
        f"{Terms(concurrency=PROCESSES)}",
    }
    if options.json:
        print(json.dumps(found | _document(plan, paces), indent=2))
        return
    print(*found.values(), sep="\n")
    for name, points in plan.items():
        _show_points(name, points)
    _show_costs(paces)
    flat = flatness(depths)
    missed = "" if flat >= FLAT else "  MISSED"
    print(f"\nBy depth, slowest to fastest: {flat:.2f}   wanted >= {FLAT}{missed}")


def _document(plan: dict[str, list[Point]], paces: dict[str, Pace]) -> dict[str, Any]:
    return {
        "rates": {
            name: [point.document() for point in points]
            for name, points in plan.items()
        },
        "costs": {package: _cost(pace) for package, pace in paces.items()},
        "flatness": {
            "value": round(flatness(next(iter(plan.values()))), 3),
            "wanted": FLAT,
        },
    }


if __name__ == "__main__":
    main()
