"""The life of a child: take a job, run it, say how it ended, take the next.

Forked from the supervisor's clean image. It shares one socketpair with main, no lock with
anybody, and a row of the board.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # what is behind `signal`, see below
import faulthandler
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import billiard.util
from billiard.einfo import ExceptionInfo
from billiard.process import Process, _set_current_process
from celery.concurrency.prefork import process_destructor, process_initializer
from celery.exceptions import SoftTimeLimitExceeded

from unstuck.core.limits import Limits
from unstuck.pool import answers, tracers, wire
from unstuck.pool.answers import Seen
from unstuck.pool.board import Column, Row
from unstuck.pool.leases import Announcer
from unstuck.pool.wire import Kind, Packet

STACK_SIGNAL = signal.SIGUSR2
"""Makes a process write down where it stands."""

SOFT_SIGNAL = signal.SIGUSR1
"""Celery's own for soft limits, so that ``revoke(signal="SIGUSR1")`` goes on working."""

# Python's own `signal.signal` turns numbers into names and back, before each task.
_set_handler = _signal.signal
_set_mask = _signal.pthread_sigmask

OURS = tuple(map(int, (STACK_SIGNAL, SOFT_SIGNAL, signal.SIGTERM)))
UNBLOCK = int(signal.SIG_UNBLOCK)

PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """This process, once it is a child."""

    def __init__(self, app: Any, hostname: str, end: socket.socket, row: Row) -> None:
        self._app = app
        self._hostname = hostname
        self._end = end
        self._row = row
        self.soft_limit = SoftLimit(row)
        self._announcer = Announcer(end)
        self._hard_limit_at: float | None = None
        self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._rss = 0

    def live(self, index: int, stack_file: int, at_birth: Callable[[], None]) -> int:
        """Serve until main says otherwise; returns the exit code.

        ``index`` tells children apart in the names of processes and log files.

        ``at_birth`` is called when the process is set up, before the project's own
        receivers of ``worker_process_init``.
        """
        process = Process(name=f"child-{index}")
        process.index = index
        _set_current_process(process)
        _leave_stdin()
        _forget_inherited(self._app)
        dump_stacks_to(stack_file)
        at_birth()
        with tracers.inherited():
            process_initializer(self._app, self._hostname)
        self._stack_file = stack_file
        self._listen()
        self._app.watch = self.soft_limit
        self._announcer.install()
        self._rss = self._rss_now()
        code = 0
        try:
            self._serve()
        except wire.GoneError:
            return 0  # Main is gone, and we are about to be.
        except SystemExit as exit_:
            code = _exit_code(exit_)
        process_destructor(os.getpid(), code)
        _flush_sentry()
        return code

    def seconds_left(self) -> float | None:
        """How long the running task has until its hard limit."""
        if self._hard_limit_at is None:
            return None
        return max(0.0, self._hard_limit_at - time.monotonic())

    def _listen(self) -> None:
        """Be reachable for main, whatever the task before has done to signals."""
        _set_handler(SOFT_SIGNAL, self.soft_limit.on_signal)
        _set_handler(signal.SIGTERM, self._on_sigterm)
        faulthandler.register(STACK_SIGNAL, self._stack_file, all_threads=True)
        _set_mask(UNBLOCK, OURS)

    def _on_sigterm(self, *_: object) -> None:
        """End if main wants this very task to end.

        A SIGTERM to all processes, as systemd sends it, means the node: main lets the
        running tasks finish.
        """
        if self._row[Column.TERMINATE] == (self.soft_limit.number or -1):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _serve(self) -> None:
        ident = pickle.dumps(threading.main_thread().ident)
        self._say(Packet(Kind.READY, 0, ident))
        while True:
            packet = wire.receive(self._end)
            if packet is None:
                # Main made the line non-blocking for an instant: see wire.blocking.
                select.select([self._end], [], [])
                continue
            if packet.kind is Kind.EXIT:
                return
            answer = self._run(packet)
            self._row[Column.DONE] = packet.number
            self._say(Packet(Kind.DONE, packet.number, answer))
            # Main reads again, if it did not while the task ran.
            self._announcer.catch_up()

    def _say(self, packet: Packet) -> None:
        while not wire.send(self._end, packet):
            time.sleep(0.01)

    def _run(self, packet: Packet) -> bytes:
        target, args, hard = pickle.loads(packet.payload)  # noqa: S301 - from main
        self._listen()
        self._announce(packet.number, hard)
        try:
            ok, value = True, target(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            ok, value = False, ExceptionInfo()
        finally:
            self.soft_limit.number = 0
            self._hard_limit_at = None
        return self._answer(ok, value)

    def _announce(self, number: int, hard: float | None) -> None:
        now = time.monotonic_ns()
        self._hard_limit_at = now / 1e9 + hard if hard else None
        self._row[Column.STARTED] = now
        self._row[Column.JOB] = number
        self.soft_limit.begin(number)

    def _answer(self, ok: bool, value: Any) -> bytes:
        before, self._rss = self._rss, self._rss_now()
        seconds = (time.monotonic_ns() - self._row[Column.STARTED]) / 1e9
        seen = Seen(seconds, self._rss, self._rss - before, self.soft_limit.raised)
        return answers.packed(ok, value, seen)

    def _rss_now(self) -> int:
        return int(os.pread(self._memory, 128, 0).split()[1]) * PAGE


class SoftLimit:
    """Interrupts the job that main means, and no other.

    The signal can come late: when the job has ended, or the next one runs. So main writes
    the job's number on the board before it sends the signal, and the exception is raised
    only while that job runs.
    """

    def __init__(self, row: Row) -> None:
        self._row = row
        self.number = 0
        self.raised = False
        self._over = False

    def begin(self, number: int) -> None:
        """A job begins."""
        self.raised = self._over = False
        self.number = number

    def over(self, task_id: str, tell: Callable[[], Limits]) -> Self:
        """The part of the job that is the task: what comes after it is not cut off."""
        return self

    def __enter__(self) -> None:
        """The task begins."""

    def __exit__(self, *_: object) -> None:
        self._over = True

    def on_signal(self, *_: object) -> None:
        """Main says that a soft limit has passed."""
        meant = self.number and self._row[Column.SOFT] == self.number
        if meant and not self._over and not self.raised:
            self.raised = True
            self._row[Column.INTERRUPTED] = self.number
            raise SoftTimeLimitExceeded


def dump_stacks_to(file: int) -> None:
    """Let this process write its stacks into ``file``, on a signal and in a crash.

    faulthandler does so in C: also while other code holds the interpreter.
    """
    faulthandler.enable(file, all_threads=True)
    faulthandler.register(STACK_SIGNAL, file, all_threads=True)


def _leave_stdin() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _forget_inherited(app: Any) -> None:
    app._after_fork()
    billiard.util._run_after_forkers()


def _flush_sentry() -> None:
    """Send what Sentry has collected; it waits for Celery's own pool to end its loop."""
    sentry = sys.modules.get("sentry_sdk")
    if sentry is not None:
        sentry.flush(timeout=2)


def _exit_code(exit_: SystemExit) -> int:
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    return 1
