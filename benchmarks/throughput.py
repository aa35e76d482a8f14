"""Tasks that do nothing, a second: ours, stock Celery, and four other queues.

    .venv/bin/python benchmarks/throughput.py [--tasks 12000] [--rounds 5] [--json]

All of them use one server, in turn, with two processes that run tasks. A backlog that was
published beforehand is drained; what counts is from when a tenth of it has run until
95 % has. A task that runs writes one byte to a file, the same for all, and that is how it
is counted. Who is slower has a smaller backlog, so that all work for some seconds.
Publishing: one process, one thread, ``.delay()`` after ``.delay()``; ``delay_many``: all
in one call.

``--only`` takes some of the contestants by the first word of their names. For what one
pool does on the same transport as the other there is ``bench_throughput.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import arena
from arena import Terms
from backlog import Ground, Pace, Stalled
from contestants import (
    OURS,
    PROCESSES,
    STOCK,
    Contestant,
    Peers,
    celery_contestants,
    celery_side,
    peers,
)

import unstuck

PER_CHILD = 100
MANY = 10
"""How many times as much is published by one ``delay_many``."""

WARM = 200

BY_DELAY, BY_MANY = " .delay()", " delay_many"
FASTEST, FASTEST_SAFE = "the fastest peer", "the fastest peer that acknowledges"
NAME_WIDTH, WIDTH = 26, 10


@dataclass(slots=True)
class Row:
    """One line of a table: tasks a second of every round, and what they cost."""

    name: str
    tasks: int
    settings: str = ""
    rates: list[float] = field(default_factory=list)
    worker_microseconds: list[float] = field(default_factory=list)
    server_microseconds: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)
    problem: str = ""
    """Why it is not measured."""

    def add(self, pace: Pace) -> None:
        """What one round has come to."""
        self.rates.append(pace.rate)
        self.worker_microseconds.append(pace.worker_microseconds)
        self.server_microseconds.append(pace.server_microseconds)
        self.commands.append(pace.commands)

    @property
    def is_measured(self) -> bool:
        """Whether every round has come to something."""
        return bool(self.rates) and not self.problem

    @property
    def median(self) -> float:
        """Tasks a second in the round in the middle."""
        return statistics.median(self.rates)

    def times(self, other: Row) -> float:
        """The middle one of the ratios of each round."""
        pairs = zip(self.rates, other.rates, strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        known: dict[str, Any] = {"name": self.name, "tasks": self.tasks}
        if self.settings:
            known["settings"] = self.settings
        if not self.is_measured:
            return {**known, "problem": self.problem}
        known |= {"median": round(self.median, 1), "rounds": _rounded(self.rates)}
        costs = ("worker_microseconds", "server_microseconds", "commands")
        for name in costs:
            if values := getattr(self, name):
                known[name] = round(statistics.median(values), 2)
        return known


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio that is wanted."""

    name: str
    ours: str
    theirs: str
    wanted: float


GOALS = (
    Goal("without recycling, to stock", OURS, STOCK, 5),
    Goal("without recycling, to the fastest peer", OURS, FASTEST, 1.3),
    Goal("the same, of those that lose nothing", OURS, FASTEST_SAFE, 1.3),
    Goal(
        f"{PER_CHILD} tasks a child, to stock",
        f"{OURS}, {PER_CHILD} a child",
        f"{STOCK}, {PER_CHILD} a child",
        12,
    ),
    Goal("publishing by .delay(), to stock", OURS + BY_DELAY, STOCK + BY_DELAY, 2.5),
    Goal("publishing by delay_many, to stock", OURS + BY_MANY, STOCK + BY_DELAY, 10),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """What became of a goal."""

    name: str
    wanted: float
    value: float | None
    against: str

    def __str__(self) -> str:
        found = "not measured" if self.value is None else f"{self.value:.2f}"
        met = "" if self.value is None or self.value >= self.wanted else "  MISSED"
        name = f"{self.name} ({self.against})"
        return f"{name:74}{found:>14}   wanted >= {self.wanted:g}{met}"

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "against": self.against,
            "value": None if self.value is None else round(self.value, 3),
            "wanted": self.wanted,
        }


# Measuring.


def drained(
    ground: Ground, contestants: Sequence[Contestant], tasks: int, rounds: int
) -> list[Row]:
    """How fast each of them drains its backlog."""
    rows = {
        one.name: Row(one.name, max(20, int(tasks * one.share)), one.settings)
        for one in contestants
    }
    for one in contestants:
        row = rows[one.name]
        with _problem_of(row):
            ground.store(one.side, row.tasks)
    for one in arena.turns(rounds, *contestants):
        row = rows[one.name]
        if not row.problem:
            with _problem_of(row):
                row.add(ground.drain(one.side, row.tasks))
    return list(rows.values())


def published(ground: Ground, terms: Terms, tasks: int, rounds: int) -> list[Row]:
    """How fast one thread of one process publishes."""
    ours, stock = celery_side(OURS, terms), celery_side(STOCK, terms)
    by_many = Row(OURS + BY_MANY, tasks * MANY)
    ways = {
        row.name: (row, side, by)
        for row, side, by in (
            (Row(OURS + BY_DELAY, tasks), ours, "publish"),
            (Row(STOCK + BY_DELAY, tasks), stock, "publish"),
            (by_many, ours, "publish_many"),
        )
    }
    if not has_delay_many():
        by_many.problem = "a task has no delay_many"
    for name in arena.turns(rounds, *ways):
        row, side, by = ways[name]
        if not row.problem:
            with _problem_of(row):
                row.rates.append(ground.publish(side, row.tasks, by=by, warm=WARM))
            ground.clear()
    return [row for row, _, _ in ways.values()]


def has_delay_many() -> bool:
    """Whether tasks of ours can be published many at once."""
    return hasattr(unstuck.Celery("probe", set_as_current=False).Task, "delay_many")


@contextmanager
def _problem_of(row: Row) -> Iterator[None]:
    try:
        yield
    except Stalled as error:
        row.problem = str(error)


def ratios(rows: Iterable[Row], others: Iterable[Contestant]) -> list[Ratio]:
    """What became of the goals."""
    known = {row.name: row for row in rows if row.is_measured}
    others = [one for one in others if one.name in known]
    for name, some in (
        (FASTEST, others),
        (FASTEST_SAFE, [one for one in others if one.acknowledges]),
    ):
        if some:
            known[name] = max(
                (known[one.name] for one in some), key=lambda row: row.median
            )
    return [_ratio(goal, known) for goal in GOALS]


def _ratio(goal: Goal, known: Mapping[str, Row]) -> Ratio:
    ours, theirs = known.get(goal.ours), known.get(goal.theirs)
    against = theirs.name if theirs else goal.theirs
    value = ours.times(theirs) if ours and theirs else None
    return Ratio(goal.name, goal.wanted, value, against)


# The report.


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found."""

    where: str
    versions: str
    said: str
    drains: Sequence[Row]
    publishing: Sequence[Row]
    ratios: Sequence[Ratio]
    missing: Mapping[str, str]

    def show(self) -> None:
        """Print it as tables."""
        print(self.where, self.versions, self.said, sep="\n")
        _show_settings(self.drains)
        for name, why in self.missing.items():
            print(f"\n{name} is NOT measured, it could not be installed: {why}")
        _show_drains(self.drains)
        _show_publishing(self.publishing)
        print("\nRatios: the middle one of the ratios of each round")
        for ratio in self.ratios:
            print(f"  {ratio}")

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "where": self.where,
            "versions": self.versions,
            "said": self.said,
            "drain": [row.document() for row in self.drains],
            "publish": [row.document() for row in self.publishing],
            "ratios": [ratio.document() for ratio in self.ratios],
            "missing": dict(self.missing),
        }


def _show_settings(rows: Iterable[Row]) -> None:
    print("\nSettings, besides two processes that run tasks:")
    for row in rows:
        print(f"  {row.name}: {row.settings}")


def _show_drains(rows: Sequence[Row]) -> None:
    """Tasks a second, how far to stock, and what a task costs."""
    heads = ("tasks/s", "least", "most", "to stock", "workers", "server", "commands")
    print(
        f"\n{'':{NAME_WIDTH}}{'':{3 * WIDTH}}{'':{WIDTH}}{'CPU us a task':>{2 * WIDTH}}"
    )
    print(f"{'Draining':{NAME_WIDTH}}" + "".join(f"{head:>{WIDTH}}" for head in heads))
    known = {row.name: row for row in rows}
    for row in rows:
        stock = known.get(f"{STOCK}{row.name.removeprefix(OURS)}", known.get(STOCK))
        print(_line(row, stock) + _costs(row))


def _show_publishing(rows: Sequence[Row]) -> None:
    heads = ("tasks/s", "least", "most", "to stock")
    print(
        f"\n{'Publishing':{NAME_WIDTH}}" + "".join(f"{one:>{WIDTH}}" for one in heads)
    )
    stock = next(row for row in rows if row.name == STOCK + BY_DELAY)
    for row in rows:
        print(_line(row, stock))


def _line(row: Row, stock: Row | None) -> str:
    if not row.is_measured:
        return f"{row.name:{NAME_WIDTH}}not measured: {row.problem}"
    values = (row.median, min(row.rates), max(row.rates))
    cells = "".join(f"{value:{WIDTH}.0f}" for value in values)
    ratio = ""
    if stock is not None and stock.is_measured:
        ratio = f"{row.times(stock):.2f}"
    return f"{row.name:{NAME_WIDTH}}{cells}{ratio:>{WIDTH}}"


def _costs(row: Row) -> str:
    if not row.is_measured:
        return ""
    worker = statistics.median(row.worker_microseconds)
    server = statistics.median(row.server_microseconds)
    commands = statistics.median(row.commands)
    return f"{worker:{WIDTH}.0f}{server:{WIDTH}.0f}{commands:{WIDTH}.2f}"


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 1) for value in values]


def _versions(found: Peers, ground: Ground) -> str:
    others = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return f"{arena.packages()}; theirs: {others}; {ground.server}"


def _options() -> argparse.Namespace:
    parser = arena.parser_of(__doc__, tasks=12_000, publish=3000, rounds=5, prefetch=4)
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    parser.add_argument("--only", nargs="*", help="the first words of some names")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = _options()
    terms = Terms(concurrency=PROCESSES, prefetch=options.prefetch)
    recycled = replace(terms, tasks_per_child=PER_CHILD)
    found = peers()
    contestants = [
        *celery_contestants(terms),
        *found.contestants,
        *celery_contestants(recycled),
    ]
    if options.only:
        contestants = [one for one in contestants if one.family in options.only]
    with Ground.open() as ground:
        drains = drained(ground, contestants, options.tasks, options.rounds)
        publishing = published(ground, terms, options.publish, options.rounds)
        report = Report(
            where=arena.surroundings(),
            versions=_versions(found, ground),
            said=f"{options.tasks} tasks for the fastest, {options.rounds} rounds",
            drains=drains,
            publishing=publishing,
            ratios=ratios([*drains, *publishing], found.contestants),
            missing=found.missing,
        )
    if options.json:
        print(json.dumps(report.document(), indent=2))
    else:
        report.show()


if __name__ == "__main__":
    main()
