"""What a node has counted of its tasks, as fine as the project wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set

from unstuck.metrics import tally
from unstuck.metrics.family import Distribution, Family, Kind, Point, Reading
from unstuck.metrics.tally import Row, Tally

DROPPED_BY: Mapping[str, Set[str]] = {
    "node": {"queue", "task"},
    "queue": {"task"},
    "task": set(),
}
"""By tier, which labels are left out: what they told apart is added up."""

ENDED = Family(
    "unstuck_tasks_ended_total",
    Kind.COUNTER,
    "Runs of tasks, and messages that never ran, by how they ended.",
    ("queue", "task", "ending"),
)
SETTLED = Family(
    "unstuck_messages_settled_total",
    Kind.COUNTER,
    "Messages that were not just acknowledged: retried or queued again by unstuck, or "
    "buried. What a task retries by itself has ended as retried.",
    ("queue", "task", "verdict"),
)
BURIED = Family(
    "unstuck_letters_buried_total",
    Kind.COUNTER,
    "Messages that became dead letters, by reason.",
    ("queue", "task", "reason"),
)
RUN = Family(
    "unstuck_task_run_seconds",
    Kind.HISTOGRAM,
    "How long tasks ran, those that were ended by a limit included.",
    ("queue", "task"),
)
WAIT = Family(
    "unstuck_task_wait_seconds",
    Kind.HISTOGRAM,
    "How long tasks waited from when they could have run until they did.",
    ("queue",),
)
SWALLOWED = Family(
    "unstuck_soft_limits_swallowed_total",
    Kind.COUNTER,
    "Runs that caught their soft limit and went on or returned.",
    ("queue", "task"),
)

UNKNOWN = "(unknown)"
"""The task of a message that is of no task here, whatever it says it is of."""

BY: Mapping[str, Callable[[Row], str]] = {
    "queue": lambda row: row.queue,
    "task": lambda row: row.task or UNKNOWN,
}
"""Labels by which rows are told apart."""

Cells = Sequence[int]

COLUMNS: tuple[tuple[Family, slice, tuple[str, ...]], ...] = (
    (ENDED, tally.ENDED, tally.ENDINGS),
    (SETTLED, tally.SETTLED, tally.VERDICTS),
    (BURIED, tally.BURIED, tally.REASONS),
)
"""Counters with a label of their own, and its values in the order of their cells."""

FAMILIES = (ENDED, SETTLED, BURIED, SWALLOWED, RUN, WAIT)


def readings(counted: Tally, tier: str) -> Iterator[Reading]:
    """All of them, by ``tier``: ``node``, ``queue`` or ``task``."""
    dropped, rows = DROPPED_BY[tier], counted.rows()
    for family, place, values in COLUMNS:
        kept = _kept(family, dropped)
        points = [
            Point((*labels, value), cell)
            for labels, cells in _grouped(rows, kept, place)
            for value, cell in zip(values, cells, strict=True)
        ]
        yield Reading(family, (*kept, family.labels[-1]), points)
    kept = _kept(SWALLOWED, dropped)
    groups = _grouped(rows, kept, tally.SWALLOWED)
    yield Reading(
        SWALLOWED, kept, [Point(labels, cells[0]) for labels, cells in groups]
    )
    for family, place in ((RUN, tally.RUN), (WAIT, tally.WAIT)):
        kept = _kept(family, dropped)
        groups = _grouped(rows, kept, place)
        yield Reading(
            family, kept, [Point(by, _distribution(seen)) for by, seen in groups]
        )


def _kept(family: Family, dropped: Set[str]) -> tuple[str, ...]:
    names = [label for label in family.labels if label in BY]
    return tuple(name for name in names if name not in dropped)


def _grouped(
    rows: Sequence[Row], kept: tuple[str, ...], place: slice
) -> list[tuple[tuple[str, ...], Cells]]:
    """The cells by the labels that are kept; without any, one group that is always there."""
    groups: dict[tuple[str, ...], list[Cells]] = {}
    for row in rows:
        labels = tuple([BY[name](row) for name in kept])
        groups.setdefault(labels, []).append(row.cells[place])
    if not kept:
        groups.setdefault((), []).append([0] * (place.stop - place.start))
    return [
        (labels, cells[0] if len(cells) == 1 else tally.added(cells))
        for labels, cells in groups.items()
    ]


def _distribution(cells: Cells) -> Distribution:
    return Distribution(tally.BOUNDS, cells[:-1], cells[-1] / tally.PER_SECOND)
