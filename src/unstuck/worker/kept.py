"""A process that is kept alive: main, the recorder, beat."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from unstuck.core.backoff import doubled
from unstuck.pool.board import Column, Row
from unstuck.worker import processes

FIRST_WAIT = timedelta(seconds=0.5)
LONGEST_WAIT = timedelta(seconds=5)

CRASHES, CRASH_SECONDS = 8, 60
"""So many ends in so short a time are a crash loop."""


class Kept:
    """One process, forked again with backoff whenever it has ended."""

    def __init__(self, name: str, row: Row, work: Callable[[], int | None]) -> None:
        self.name = name
        self.row = row
        self.pid: int | None = None
        self.silence_matters = True
        self.starts = 0
        self.restart_at: float | None = None
        self.kill_at: float | None = None
        """When a process that has stalled is killed, its stack written down."""

        self.waited_for = ""
        """What it waited for when it was found stalled."""

        self.was_stopped = False
        """Whether a signal had stopped it then."""

        self.stack_file = os.memfd_create(f"unstuck-{name}", os.MFD_CLOEXEC)
        self._work = work
        self._ends: deque[float] = deque(maxlen=CRASHES)

    def start(self) -> None:
        """Fork it."""
        self.restart_at = self.kill_at = None
        os.lseek(self.stack_file, 0, os.SEEK_SET)
        os.ftruncate(self.stack_file, 0)
        self.row.clear()
        self.starts += 1
        self.pid = processes.fork(self._work)
        self.row[Column.PID] = self.pid

    def ended(self) -> float:
        """It has ended unasked; returns the seconds after which it starts again."""
        now = time.monotonic()
        self.pid = None
        self.row.clear()  # What it said is no longer so.
        self._ends.append(now)
        recent = sum(now - end < CRASH_SECONDS for end in self._ends)
        wait = 0.0
        if recent > 1:
            wait = doubled(FIRST_WAIT, recent - 2, LONGEST_WAIT).total_seconds()
        self.restart_at = now + wait
        return wait

    @property
    def crashes_in_a_loop(self) -> bool:
        """Whether starting it again has proved to be of no use."""
        full = len(self._ends) == CRASHES
        return full and self._ends[-1] - self._ends[0] < CRASH_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether it is time to start it again."""
        return self.restart_at is not None and time.monotonic() >= self.restart_at
