"""The board: a small page of shared memory on which each process says what it does.

Each process writes its own row and nobody waits for anybody: a number of eight bytes is
written whole. Times are of the clock that all processes of a host share.
"""

from __future__ import annotations

import mmap
import time
from enum import IntEnum

from unstuck.metrics.tally import Tally

MAIN = 0
RECORDER = 1
PROBES = 2
SUPERVISOR = 3
BEAT = 4
OTHERS = 5
"""The first row of what else a supervisor keeps."""

FIRST_CHILD = 10
CHILDREN = 1014
"""Rows for children: more than a host can run."""


class Column(IntEnum):
    """The numbers of a row."""

    PID = 0
    BEAT = 1
    """When the process last said that it is well, in nanoseconds."""

    JOB = 2
    """The number of the job that the child began last."""

    STARTED = 3
    """When that was, in nanoseconds."""

    DONE = 4
    """The number of the job that it has come to the end of last."""

    SOFT = 5
    """The number of the job that main wants to interrupt at its soft limit."""

    INTERRUPTED = 6
    """The number of the job in which the soft limit was raised last."""

    TERMINATE = 7
    """The number of the job that main wants to end with SIGTERM."""

    READY = 8
    """Whether main consumes."""

    HURRY = 9
    """Whether main shall stop at once."""

    STOPPING = 10
    """Whether the node stops, in the row of main."""

    # What only main knows, and tells by its lookout. Instants are in nanoseconds, and 0
    # when there was none.

    CONNECTED = 11
    """Whether the consumer believes that it has a connection."""

    ANSWERED = 12
    """When the broker answered last."""

    UNANSWERED = 13
    """Since when the broker does not answer."""

    WAITING = 14
    """How many messages wait in the queues that main consumes, plus one; 0 if unknown."""

    TAKEN = 15
    """When a message was taken last."""

    SLOTS = 16
    """How many tasks may run at once."""

    FREE = 17
    """How many more could begin now."""

    SERVING = 18
    """How many children are up."""

    LONGEST = 19
    """When the task that runs longest began."""

    PAUSED = 20
    """Whether main consumes no queue, as somebody told it."""

    FULL = 21
    """Whether main holds as many messages as it may."""

    DEAF = 22
    """Since when main takes none of the messages that wait, though it could."""

    REPLACE = 23
    """Whether main wants another one in its place."""

    # In other rows.

    REPLACED = 24
    """In the row of the supervisor: when it replaced a main that was deaf."""

    DATABASE_AWAY = 25
    """In the row of the recorder: since when the database does not do what it shall."""

    LAG = 26
    """In the row of the recorder: how long the oldest fact has waited, in nanoseconds."""

    RUNNING = 27
    """In the row of main: how many tasks a process has begun with."""

    RESERVED = 28
    """In the row of main: how many tasks it has taken that have not begun."""


class Board:
    """Shared by a process with all that it forks."""

    def __init__(self) -> None:
        cells = (FIRST_CHILD + CHILDREN) * len(Column)
        self._memory = mmap.mmap(-1, cells * 8)
        self._cells = memoryview(self._memory).cast("q")
        self.tally = Tally()
        """What is counted. Rows are as new with each process, and this is not."""

    def row(self, number: int) -> Row:
        """The row of one process."""
        start = number * len(Column)
        return Row(self._cells[start : start + len(Column)])

    def children(self) -> list[int]:
        """The processes that run tasks, as far as they are ours."""
        first, width = FIRST_CHILD * len(Column) + Column.PID, len(Column)
        return [pid for pid in self._cells[first::width].tolist() if pid]


class Row:
    """What one process says."""

    def __init__(self, cells: memoryview[int]) -> None:
        self._cells = cells

    def __getitem__(self, column: Column) -> int:
        return self._cells[column]

    def __setitem__(self, column: Column, value: int) -> None:
        self._cells[column] = value

    def clear(self, pid: int = 0) -> None:
        """Begin anew for another process."""
        for column in Column:
            self._cells[column] = 0
        self._cells[Column.PID] = pid
        self.beat()

    def beat(self) -> None:
        """Say that the process is well."""
        self._cells[Column.BEAT] = time.monotonic_ns()

    def silent_seconds(self) -> float:
        """How long ago the last beat was."""
        return (time.monotonic_ns() - self._cells[Column.BEAT]) / 1e9
