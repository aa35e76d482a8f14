"""Processes that give no sign of life, or that want another in their place.

Where they stand is written down first; then they are killed, and started again.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from typing import Protocol

from unstuck.fields import Fields
from unstuck.pool import kernel, proc, stack
from unstuck.pool.board import Column, Row
from unstuck.pool.child import STACK_SIGNAL
from unstuck.worker import processes
from unstuck.worker.kept import Kept

DUMP_SECONDS = 0.3

logger = logging.getLogger(__name__)


class Report(Protocol):
    """Makes an incident of what was seen."""

    def __call__(
        self, kind: str, kept: Kept, pid: int, what: str, stack_text: str = ""
    ) -> None: ...


class Stalls:
    """Finds them, and ends them. ``own_row`` is that of the supervisor."""

    def __init__(self, seconds: float, own_row: Row, report: Report) -> None:
        self._seconds = seconds
        self._own_row = own_row
        self._report = report

    def look(self, all_kept: Iterable[Kept]) -> None:
        """Look at each of them; nothing here waits."""
        now = time.monotonic()
        for kept in all_kept:
            if kept.pid is None or not kept.silence_matters:
                continue
            if kept.kill_at is None:
                silent = kept.row.silent_seconds() > self._seconds
                if silent or kept.row[Column.REPLACE]:
                    self._ask_where_it_stands(kept, kept.pid)
            elif now >= kept.kill_at:
                if kept.row[Column.REPLACE]:
                    self._replace(kept, kept.pid)
                else:
                    self._kill_if_still_stalled(kept, kept.pid)

    def _ask_where_it_stands(self, kept: Kept, pid: int) -> None:
        kept.waited_for = kernel.waiting_for(pid)
        kept.was_stopped = proc.state_of(pid) == "T"
        kept.kill_at = time.monotonic() + DUMP_SECONDS
        processes.send(pid, STACK_SIGNAL)
        # A stopped process writes its stack as the first thing when it goes on.
        processes.send(pid, signal.SIGCONT)

    def _kill_if_still_stalled(self, kept: Kept, pid: int) -> None:
        waits = kept.waited_for or "something unknown"
        # What was stopped from outside waits for nothing of its own.
        doing = waits if waits.startswith("stopped") else f"waiting for {waits}"
        # One that was stopped goes on because we asked, and long after its time.
        beats = kept.row.silent_seconds() < self._seconds
        goes_on = beats and not kept.was_stopped
        what = (
            f"The {kept.name} process (pid {pid}) gave no sign of life for more than "
            f"{self._seconds:g} s, {doing}; "
            + ("it goes on" if goes_on else "it is killed and started again")
        )
        logger.critical(
            "A process gave no sign of life and goes on: %(fields)s"
            if goes_on
            else "A process gave no sign of life, is killed and started again: %(fields)s",
            Fields(name=kept.name, pid=pid, silent=self._seconds, waits_for=waits),
        )
        self._report("stall", kept, pid, what, stack_in(kept))
        if goes_on:
            kept.kill_at = None
            return
        _kill(kept, pid)

    def _replace(self, kept: Kept, pid: int) -> None:
        what = (
            f"The {kept.name} process (pid {pid}) takes none of the messages that wait, also "
            f"since its consumer was restarted; it is killed and started again"
        )
        logger.critical(
            "A process takes no messages, also since its consumer was restarted; it is "
            "killed and started again: %(fields)s",
            Fields(name=kept.name, pid=pid),
        )
        self._report("deaf", kept, pid, what, stack_in(kept))
        self._own_row[Column.REPLACED] = time.monotonic_ns()
        _kill(kept, pid)


def stack_in(kept: Kept) -> str:
    """The stack that a process has written when it was asked to."""
    dump = os.pread(kept.stack_file, 256 * 1024, 0)
    return stack.readable(dump, None) if dump else ""


def _kill(kept: Kept, pid: int) -> None:
    processes.send(pid, signal.SIGKILL)
    kept.kill_at = float("inf")
