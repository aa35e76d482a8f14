"""What a node has counted: in shared memory, so that no process takes its counts with it.

Each process writes a sheet of its own and nobody waits for anybody: a number of eight bytes
is written whole. What is counted by task and queue is written by main alone. A main that is
started anew goes on with what the one before it has counted; all ends with the node.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unstuck.core.facts import OTHERS, Minute
from unstuck.core.histogram import LAST, bounds
from unstuck.core.outcome import Ending
from unstuck.core.verdict import Reason

OTHER = "other"

COUNTED: Mapping[str, tuple[str, ...]] = {
    "taken": ("",),
    "put_off": ("",),
    "strikes": ("",),
    "incidents": (
        *("main_lost", "recorder_lost", "probes_lost", "beat_lost", "otel_lost"),
        *("stall", "deaf", "crash_loop", OTHER),
    ),
    "restarts": ("main", "recorder", "probes", "beat", "otel", OTHER),
    "children": (
        *("recycled", "exited", "crashed", "out_of_memory", "killed"),
        *("hard_limit", "memory_limit", "request", "shutdown", OTHER),
    ),
    "facts_dropped": ("",),
    "facts_left_out": ("",),
    "chores_failed": ("",),
}
"""What is counted of a node as a whole, each by a label with these values."""

PLACES: Mapping[tuple[str, str], int] = {
    (what, label): place
    for place, (what, label) in enumerate(
        (what, label) for what, labels in COUNTED.items() for label in labels
    )
}
SHEETS = 4
"""For main, the recorder, the probes and the supervisor, as the board numbers them."""

# By task and queue.

ENDINGS = tuple(ending.value for ending in Ending if ending is not Ending.LOCK_BUSY)
"""What is put off for a lock has not run."""

VERDICTS = ("retry", "requeue", "bury")
REASONS = tuple(reason.value for reason in Reason)
BOUNDS = (
    *(0.015625, 0.0625, 0.25, 0.5, 1.0, 2.5, 5.0),
    *(10.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 3840.0),
)
"""Seconds. Each is a bound of a bucket of ours, so nothing is counted in two of them."""

PER_SECOND = 1_000_000
"""Times are added up in microseconds: three hundred thousand years of them fit."""

MOST_ROWS = 200
"""So many pairs of a task and a queue; whatever comes then is counted together."""

ROOM_FOR_OTHERS = 20
"""Of those, how many are kept for the rest of the tasks of a queue."""

NAME_BYTES = 2048
LONGEST_NAME = 250
"""Characters of the name of a task or a queue; with four bytes each two of them fit."""


def _slices() -> Iterable[slice]:
    start = 0
    buckets = len(BOUNDS) + 1
    # The last of a distribution is the sum.
    for length in (
        *(len(ENDINGS), len(VERDICTS), len(REASONS)),
        *(buckets + 1, buckets + 1, 1),
    ):
        yield slice(start, start + length)
        start += length


ENDED, SETTLED, BURIED, RUN, WAIT, SWALLOWED = _slices()
CELLS = SWALLOWED.stop

_BUCKET_OF = [
    next((i for i, bound in enumerate(BOUNDS) if bounds(b)[1] <= bound), len(BOUNDS))
    for b in range(LAST + 1)
]
"""From a bucket of ``Histogram`` to one of these."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was counted of a task in a queue."""

    task: str
    queue: str
    cells: list[int]


class Tally:
    """Shared by a process with all that it forks."""

    def __init__(self) -> None:
        sheets, rows = SHEETS * len(PLACES), MOST_ROWS * CELLS
        # What nobody touches takes no memory.
        self._numbers = memoryview(mmap.mmap(-1, (1 + sheets + rows) * 8)).cast("q")
        self._sheets = self._numbers[1 : 1 + sheets]
        self._rows = self._numbers[1 + sheets :]
        self._names = mmap.mmap(-1, MOST_ROWS * NAME_BYTES)

    def sheet(self, process: int) -> Sheet:
        """Where a process counts, by the number of its row on the board."""
        start = process * len(PLACES)
        return Sheet(self._sheets[start : start + len(PLACES)])

    def total(self, what: str) -> dict[str, int]:
        """What all processes have counted, by label."""
        cells = self._sheets.tolist()
        return {
            label: sum(cells[PLACES[what, label] :: len(PLACES)])
            for label in COUNTED[what]
        }

    def rows(self) -> list[Row]:
        """What was counted by task and queue."""
        return [
            Row(*self._name(number), self._cells(number).tolist())
            for number in range(self._numbers[0])
        ]

    def by_task(self) -> TaskTally:
        """Where main counts by task and queue; it alone."""
        return TaskTally(self)

    def _cells(self, number: int) -> memoryview[int]:
        return self._rows[number * CELLS : (number + 1) * CELLS]

    def _name(self, number: int) -> tuple[str, str]:
        start = number * NAME_BYTES
        said = self._names[start : start + NAME_BYTES].rstrip(b"\0")
        task, _, queue = said.decode().partition("\n")
        return task, queue

    def _add_row(self, task: str, queue: str) -> int:
        number = self._numbers[0]
        # To the end: somebody may have been killed here before.
        said = f"{task}\n{queue}".encode().ljust(NAME_BYTES, b"\0")
        self._names[number * NAME_BYTES : (number + 1) * NAME_BYTES] = said
        # Who reads looks no further than this: it is the last that is written.
        self._numbers[0] = number + 1
        return number


class Sheet:
    """What one process counts of the node."""

    def __init__(self, cells: memoryview[int]) -> None:
        self._cells = cells

    def count(self, what: str, label: str = "", by: int = 1) -> None:
        """Count so many more. A label that is not known counts as ``other``."""
        place = PLACES.get((what, label))
        self._cells[PLACES[what, OTHER] if place is None else place] += by


class TaskTally:
    """What main counts by task and queue. Bounded, whatever names come."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._adding = threading.Lock()
        self._known = {
            (row.task, row.queue): tally._cells(number)
            for number, row in enumerate(tally.rows())
        }

    def add(self, minute: Minute) -> None:
        """Add what was counted within a minute, or a part of it."""
        cells = self._row(minute.task_name, minute.queue)
        for ending, count in minute.counts.items():
            cells[ENDED.start + ENDINGS.index(ending)] += count
        _add_times(cells, RUN, minute.runtimes, minute.runtime_seconds)
        _add_times(cells, WAIT, minute.waits, minute.wait_seconds)
        cells[SWALLOWED.start] += minute.swallowed

    def settle(self, task: str, queue: str, verdict: str, reason: str = "") -> None:
        """Count a message that goes elsewhere than away: ``verdict`` is no ``ack``."""
        cells = self._row(task, queue)
        cells[SETTLED.start + VERDICTS.index(verdict)] += 1
        if reason:
            cells[BURIED.start + REASONS.index(reason)] += 1

    def turn_away(self, queue: str, ending: str, verdict: str, reason: str) -> None:
        """Count a message that is of no task here. Its name is somebody else's idea."""
        self._row("", queue)[ENDED.start + ENDINGS.index(ending)] += 1
        self.settle("", queue, verdict, reason)

    def _row(self, task: str, queue: str) -> memoryview[int]:
        cells = self._known.get((task, queue))
        if cells is not None:
            return cells
        # In a pool of threads two of them may come with the same name.
        with self._adding:
            return self._find_or_add(_sound(task), _sound(queue))

    def _find_or_add(self, task: str, queue: str) -> memoryview[int]:
        room = MOST_ROWS - len(self._known)
        if (task, queue) not in self._known and room <= ROOM_FOR_OTHERS:
            task = OTHERS
        if (task, queue) not in self._known and room <= 1:
            queue = OTHERS
        if (task, queue) not in self._known:
            number = self._tally._add_row(task, queue)
            self._known[task, queue] = self._tally._cells(number)
        return self._known[task, queue]


def _add_times(
    cells: memoryview[int], place: slice, histogram: str, seconds: float
) -> None:
    for pair in histogram.split():
        bucket, _, count = pair.partition(":")
        cells[place.start + _BUCKET_OF[int(bucket)]] += int(count)
    # A clock that was set back must not take anything away.
    cells[place.stop - 1] += max(0, int(seconds * PER_SECOND))


def _sound(name: str) -> str:
    """A name as it can be written and read again."""
    plain = name.replace("\n", " ").replace("\0", " ")[:LONGEST_NAME]
    return plain.encode("utf-8", "replace").decode()


def added(rows: Sequence[Sequence[int]]) -> list[int]:
    """The cells of several rows together."""
    return [sum(column) for column in zip(*rows, strict=True)]
