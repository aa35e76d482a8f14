"""The board: a small page of shared memory on which each process says what it does.

Each process writes its own row and nobody waits for anybody: a number of eight bytes is
written whole. Times are of the clock that all processes of a host share.
"""

from __future__ import annotations

import mmap
import time
from enum import IntEnum

MAIN = 0
RECORDER = 1
FIRST_CHILD = 8
CHILDREN = 1016
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


class Board:
    """Shared by a process with all that it forks."""

    def __init__(self) -> None:
        cells = (FIRST_CHILD + CHILDREN) * len(Column)
        self._memory = mmap.mmap(-1, cells * 8)
        self._cells = memoryview(self._memory).cast("q")

    def row(self, number: int) -> Row:
        """The row of one process."""
        start = number * len(Column)
        return Row(self._cells[start : start + len(Column)])


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
