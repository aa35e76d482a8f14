"""The supervisor: the parent of a node's processes, which does nothing that can block.

It has the project imported and nothing else: no broker, no database, no thread. So it
can always fork a process from a clean image, and always kill one that is stuck.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from unstuck.core.clock import system_clock
from unstuck.core.facts import Incident
from unstuck.fields import Fields
from unstuck.logs.process import become
from unstuck.pool.board import (
    BEAT,
    MAIN,
    OTHERS,
    PROBES,
    RECORDER,
    SUPERVISOR,
    Board,
    Column,
)
from unstuck.pool.child import dump_stacks_to
from unstuck.worker import processes
from unstuck.worker.channel import FactChannel
from unstuck.worker.children import Children
from unstuck.worker.kept import CRASH_SECONDS, CRASHES, Kept
from unstuck.worker.sdnotify import Notifier
from unstuck.worker.stalls import Stalls, stack_in

logger = logging.getLogger(__name__)

WAIT_SECONDS = 0.5
PAUSE_SECONDS = 5
"""When the supervisor itself did not run for so long, all of them stood still."""

STOP_SECONDS = 10
"""How long processes may take to end when they are asked to, beyond running tasks."""

EX_SOFTWARE = 70
ROWS = {"main": MAIN, "recorder": RECORDER, "probes": PROBES, "beat": BEAT}
OUTLIVE_SIGTERM = ("recorder", "probes")
"""A SIGTERM to all processes has ended them, and the node still stops: main may bury, and
somebody may ask how it is."""


@dataclass(kw_only=True)
class Supervisor:
    """Keeps processes alive and watches over them, until it is told to stop."""

    node: str
    facts: FactChannel
    stall_seconds: float
    grace_seconds: float = 0.0
    """How long running tasks get when the node stops."""

    board: Board = field(default_factory=Board)
    children: Children | None = None
    notifier: Notifier = field(default_factory=lambda: Notifier({}))
    given_up: Callable[[], bool] = lambda: False
    """Whether there is no reason to go on, asked now and then."""

    def __post_init__(self) -> None:
        self.kept: list[Kept] = []
        """The first one is what the others are there for: when it stops, all do."""

        self.main: Kept | None = None
        """The one that uses the children, where there are any."""

        self.wants_restart = False
        """Whether it was asked to load everything anew, by a SIGHUP."""

        self._row = self.board.row(SUPERVISOR)
        self._counts = self.board.tally.sheet(SUPERVISOR)
        self._stalls = Stalls(self.stall_seconds, self._row, self._report)
        self._told_ready = False
        self._is_ending = False
        self._heard: Counter[int] = Counter()
        self._stop_before: float | None = None
        self._exitcode = 0
        self._turned_at = time.monotonic()

    def keep(self, name: str, work: Callable[[Board], int | None]) -> Kept:
        """Keep a process alive that does ``work``."""
        others = sum(kept.name not in ROWS for kept in self.kept)
        row = self.board.row(ROWS.get(name, OTHERS + others))

        def live() -> int | None:
            self._let_go()
            become(name)
            dump_stacks_to(kept.stack_file)
            return work(self.board)

        kept = Kept(name, row, live)
        kept.silence_matters = name in ROWS
        self.kept.append(kept)
        if name == "main":
            self.main = kept
        return kept

    def run(self) -> int:
        """Supervise until all is over; returns the exit code."""
        self._open()
        try:
            for kept in self.kept:
                self._start(kept)
            while not self._is_over:
                self._turn()
        finally:
            self._end_all()
            self._close()
        return self._exitcode

    # The loop.

    def _open(self) -> None:
        self._row.clear(os.getpid())
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._earlier = [
            (number, signal.signal(number, self._on_signal))
            for number in processes.HANDLED
        ]
        signal.set_wakeup_fd(self._ringer.fileno(), warn_on_full_buffer=False)

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._earlier:
            signal.signal(number, handler)
        self._let_go()

    def _let_go(self) -> None:
        """Close what is the supervisor's alone, also in what it has forked."""
        self._selector.close()
        self._bell.close()
        self._ringer.close()
        if self.children:
            self.children.let_go()

    def let_go_for_child(self) -> None:
        """In a child: close all that it has nothing to do with."""
        self._let_go()
        self.facts.close()
        for kept in self.kept:
            os.close(kept.stack_file)

    def _on_signal(self, number: int, _: object) -> None:
        self._heard[number] += 1

    def _turn(self) -> None:
        self._wait()
        self._excuse_a_pause()
        self._row.beat()
        self._obey()
        self._reap()
        if self.children:
            self.children.serve()
        self._stalls.look(self.kept)
        self._start_what_is_due()
        self._tell_systemd()

    def _wait(self) -> None:
        line = self.children.line if self.children else None
        if line:
            self._selector.register(line, selectors.EVENT_READ)
        self._selector.select(self._seconds_to_wait())
        if line:
            self._selector.unregister(line)
        with suppress(BlockingIOError):
            self._bell.recv(4096)

    def _seconds_to_wait(self) -> float:
        now = time.monotonic()
        times = [kept.kill_at for kept in self.kept]
        if self._stop_before is None:
            times += [kept.restart_at for kept in self.kept]
        nearest = min((at for at in times if at is not None), default=now + 1)
        return max(0.0, min(WAIT_SECONDS, nearest - now))

    def _excuse_a_pause(self) -> None:
        """A host that slept has stopped all of us: nobody stalled for that."""
        now = time.monotonic()
        if now - self._turned_at > PAUSE_SECONDS:
            for kept in self.kept:
                kept.row.beat()
        self._turned_at = now

    @property
    def _is_over(self) -> bool:
        if self._stop_before is None:
            return self.given_up()
        return self.kept[0].pid is None or time.monotonic() >= self._stop_before

    # Signals.

    def _obey(self) -> None:
        heard, self._heard = self._heard, Counter()
        if heard[signal.SIGHUP] and self._stop_before is None:
            self.wants_restart = True
            self.notifier.reloading()
            self._stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            for _ in range(heard[number]):
                self._stop_for_good(at_once=self._stop_before is not None)
        if heard[signal.SIGQUIT]:
            self._stop_for_good(at_once=True)
        if heard[signal.SIGUSR1] and self.main and self.main.pid:
            processes.send(self.main.pid, signal.SIGUSR1)

    def _stop_for_good(self, *, at_once: bool) -> None:
        self.wants_restart = False
        self.notifier.stopping()
        self._stop(at_once=at_once)

    def _stop(self, *, at_once: bool = False) -> None:
        """Have the node stop, with the time that running tasks get or without."""
        grace = 0.0 if at_once else self.grace_seconds
        self._stop_within(grace + STOP_SECONDS)
        self.kept[0].row[Column.HURRY] = at_once
        if self.kept[0].pid:
            processes.send(self.kept[0].pid, signal.SIGTERM)

    def _stop_within(self, seconds: float) -> None:
        self._stop_before = time.monotonic() + seconds
        self.board.row(MAIN)[Column.STOPPING] = 1

    # Deaths.

    def _reap(self) -> None:
        """Take note of every process that has ended: also of strangers, as PID 1 must."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, options)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            if self.children and pid in self.children:
                in_order = ended.si_code == os.CLD_EXITED and ended.si_status == 0
                self.children.reap(pid, in_order=in_order)
                continue
            _, status = os.waitpid(pid, 0)
            for kept in self.kept:
                if kept.pid == pid:
                    self._on_end(kept, os.waitstatus_to_exitcode(status))

    def _on_end(self, kept: Kept, exitcode: int) -> None:
        if self._stop_before is not None:
            kept.pid = None
            goes_on = not (self._is_ending or self._is_over)
            if goes_on and kept is not self.kept[0] and kept.name in OUTLIVE_SIGTERM:
                kept.start()
            return
        if kept is self.main and exitcode == 0:
            # It stopped by itself, as somebody told it by remote control.
            kept.pid = None
            self._stop_within(STOP_SECONDS)
            return
        was_stalled = kept.kill_at is not None
        pid = kept.pid or 0
        dump = stack_in(kept)
        wait = kept.ended()
        if kept is self.main and self.children:
            self.children.end_for_main()
        if kept is self.main and kept.crashes_in_a_loop:
            self._give_up(kept, exitcode)
            return
        after = (
            f"a new one starts in {wait:g} s" if wait else "a new one starts at once"
        )
        how = processes.in_words(exitcode)
        what = f"The {kept.name} process (pid {pid}) ended with {how}"
        logger.error(
            "A process ended, and a new one starts: %(fields)s",
            Fields(name=kept.name, pid=pid, how=how, wait=wait),
        )
        if not was_stalled:
            self._report(f"{kept.name}_lost", kept, pid, f"{what}; {after}", dump)

    def _give_up(self, kept: Kept, exitcode: int) -> None:
        what = (
            f"The {kept.name} process ended {CRASHES} times within {CRASH_SECONDS} s, "
            f"the last time with {processes.in_words(exitcode)}: giving up"
        )
        logger.critical(
            "A process ended too often, and the node gives up: %(fields)s",
            Fields(
                name=kept.name,
                times=CRASHES,
                within=CRASH_SECONDS,
                how=processes.in_words(exitcode),
            ),
        )
        self._report("crash_loop", kept, 0, what)
        self._exitcode = EX_SOFTWARE
        self._stop_within(STOP_SECONDS)

    def _start_what_is_due(self) -> None:
        if self._stop_before is not None:
            return
        for kept in self.kept:
            if kept.is_due and not self._must_wait_for_children(kept):
                self._start(kept)

    def _start(self, kept: Kept) -> None:
        if kept.starts:
            self._counts.count("restarts", kept.name)
        if kept is self.main and self.children:
            self.children.start_main(kept)
        else:
            kept.start()

    def _must_wait_for_children(self, kept: Kept) -> bool:
        """The children of the old main run tasks that the new one may be given."""
        if kept is not self.main or self.children is None:
            return False
        late = time.monotonic() - (kept.restart_at or 0) > STOP_SECONDS
        return self.children.count > 0 and not late

    # What it tells.

    def _report(
        self, kind: str, kept: Kept, pid: int, what: str, stack_text: str = ""
    ) -> None:
        self._counts.count("incidents", kind)
        self.facts.send(
            Incident(
                kind=kind,
                node=self.node,
                at=system_clock(),
                process=kept.name,
                pid=pid,
                what=what,
                stack=stack_text,
                waiting_for=kept.waited_for,
            )
        )

    def _tell_systemd(self) -> None:
        if self.kept[0].row[Column.READY] and not self._told_ready:
            self._told_ready = True
            self.notifier.ready()
        self.notifier.watchdog()

    # The end.

    def _end_all(self) -> None:
        """End what is left: politely, then for sure."""
        self._is_ending = True
        if self.children:
            self.children.end_for_main()
        left = [kept for kept in self.kept if kept.pid]
        for kept in left:
            late = kept is self.main
            processes.send(kept.pid or 0, signal.SIGKILL if late else signal.SIGTERM)
            if late:
                logger.error("Main did not stop in time: it is killed")
                self._exitcode = self._exitcode or 1
        self._await(left, STOP_SECONDS)
        for kept in left:
            if kept.pid:
                processes.send(kept.pid, signal.SIGKILL)
        self._await(left, STOP_SECONDS)

    def _await(self, left: list[Kept], seconds: float) -> None:
        self._stop_before = deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._reap()
            busy = self.children and self.children.count
            if not busy and not any(kept.pid for kept in left):
                return
            self._wait()
