"""The supervisor's side of the children: forks them for main, and says how they died."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unstuck.pool import nursery, wire
from unstuck.pool.board import CHILDREN, FIRST_CHILD, Board, Column
from unstuck.pool.death import Death, OomKills
from unstuck.worker import processes
from unstuck.worker.kept import Kept

KIB = 1024


@dataclass(frozen=True, slots=True)
class Alive:
    """A child that has not been reaped."""

    row: int
    born: float


class Children:
    """Forks a child whenever main asks for one.

    ``work`` is a child's whole life: it is called with the child's end of its line, the
    number of its row and the descriptor that it writes its stacks to.
    """

    def __init__(
        self, board: Board, work: Callable[[socket.socket, int, int], int]
    ) -> None:
        self._board = board
        self._work = work
        self._alive: dict[int, Alive] = {}
        self._oom_kills = OomKills()
        self._line: socket.socket | None = None
        self._mains_end: socket.socket | None = None
        self._unsaid: deque[tuple[dict[str, Any], tuple[int, ...]]] = deque()

    def __contains__(self, pid: int) -> bool:
        return pid in self._alive

    @property
    def count(self) -> int:
        """How many have not been reaped."""
        return len(self._alive)

    def start_main(self, main: Kept) -> None:
        """Fork a new main with a new line to it."""
        self._close_line()
        self._line, self._mains_end = wire.pair()
        self._line.setblocking(False)
        main.start()
        self._mains_end.close()
        self._mains_end = None

    def take_mains_end(self) -> socket.socket:
        """In main: its end of the line."""
        assert self._mains_end is not None  # noqa: S101 - it was forked with one
        return self._mains_end

    @property
    def line(self) -> socket.socket | None:
        """Readable when main wants something."""
        return self._line

    def serve(self) -> None:
        """Do what main asks for: one wish at a time, so that the dead are reaped, too."""
        self._say_what_did_not_fit()
        try:
            if self._line and (message := nursery.listen(self._line)):
                for _ in range(message[0]["fork"]):
                    self._try_to_fork()
        except EOFError:
            self._close_line()

    def end_for_main(self) -> None:
        """Main is gone: nobody hears of its children, and nobody asks for more.

        They end with what they have started.
        """
        self._close_line()
        for pid in self._alive:
            _kill_group(pid)
            processes.send(pid, signal.SIGKILL)

    def reap(self, pid: int, *, in_order: bool) -> None:
        """Take note of the death of a child that can be waited for.

        What it has started goes with it, unless it exited ``in_order``.
        """
        if not in_order:
            _kill_group(pid)  # While its number cannot be another's.
        _, status, usage = os.wait4(pid, 0)
        alive = self._alive.pop(pid)
        death = Death(
            pid=pid,
            exitcode=os.waitstatus_to_exitcode(status),
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_rss_bytes=usage.ru_maxrss * KIB,
            age_seconds=time.monotonic() - alive.born,
            oom_kills=self._oom_kills.new(),
        )
        row = self._board.row(alive.row)
        row[Column.PID] = 0
        job = row[Column.JOB]
        self._say({"died": death.to_wire(), "row": alive.row, "job": job})

    def let_go(self) -> None:
        """In a forked process: close what is the supervisor's alone."""
        self._close_line()

    def _try_to_fork(self) -> None:
        taken = {alive.row for alive in self._alive.values()}
        rows = range(FIRST_CHILD, FIRST_CHILD + CHILDREN)
        number = next((row for row in rows if row not in taken), None)
        if number is None:
            self._say({"unborn": f"there are {CHILDREN} children already"})
            return
        try:
            self._fork(number)
        except OSError as error:
            self._say({"unborn": f"fork: {error}"})

    def _fork(self, number: int) -> None:
        self._board.row(number).clear()
        with contextlib.ExitStack() as opened:
            mains, childs = map(opened.enter_context, wire.pair())
            stack_file = os.memfd_create("unstuck-stack", os.MFD_CLOEXEC)
            opened.callback(os.close, stack_file)

            def live() -> int:
                os.setpgid(0, 0)
                mains.close()
                return self._work(childs, number, stack_file)

            pid = processes.fork(live)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # Whoever of the two is first.
            self._alive[pid] = Alive(number, time.monotonic())
            self._board.row(number)[Column.PID] = pid
            handle = os.pidfd_open(pid)  # Without it the child finds its line closed.
            opened.pop_all()
        files = (mains.detach(), childs.detach(), handle, stack_file)
        self._say({"born": pid, "row": number}, files)

    def _say(self, message: dict[str, Any], files: tuple[int, ...] = ()) -> None:
        if self._line is None:
            _close(files)
            return
        self._unsaid.append((message, files))
        self._say_what_did_not_fit()

    def _say_what_did_not_fit(self) -> None:
        # Main may be stopped: nobody waits for it here.
        while self._line and self._unsaid:
            message, files = self._unsaid[0]
            try:
                if not nursery.say(self._line, message, files):
                    return
            except OSError:
                self._close_line()
                return
            self._unsaid.popleft()
            _close(files)

    def _close_line(self) -> None:
        for _, files in self._unsaid:
            _close(files)
        self._unsaid.clear()
        if self._line:
            self._line.close()
            self._line = None


def _close(files: tuple[int, ...]) -> None:
    for file in files:
        os.close(file)


def _kill_group(pid: int) -> None:
    """End the processes that a child has started and that are still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
