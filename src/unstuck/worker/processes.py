"""Fork a process that does one thing, and end it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

from unstuck import tracing
from unstuck.fields import Fields
from unstuck.pool import prctl

logger = logging.getLogger(__name__)

HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)
"""The signals that mean something to a supervisor, and must not to what it forks."""


def fork(work: Callable[[], int | None]) -> int:
    """Fork a process whose whole life is ``work``; returns its pid.

    It dies with this process. Its exit code is what ``work`` returns.
    """
    parent = os.getpid()
    _flush()
    # A signal in between would run the parent's handler in the child.
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _become(work, parent, earlier)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _become(work: Callable[[], int | None], parent: int, mask: Iterable[int]) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        # What a terminal sends goes to all; who forked us says when to stop.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = work() or 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        logger.exception("A process failed: %(fields)s", Fields(pid=os.getpid()))
    finally:
        _flush()
        tracing.flush()
        os._exit(code)


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()


def die_with(parent: int) -> None:
    """Have the kernel end this process when the one that forked it ends."""
    prctl.die_with_parent()
    if os.getppid() != parent:
        os._exit(0)


def send(pid: int, number: signal.Signals) -> None:
    """Send a child of ours a signal, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def in_words(exitcode: int) -> str:
    """How a process ended, from what ``waitstatus_to_exitcode`` makes of it."""
    if exitcode >= 0:
        return f"exit code {exitcode}"
    return signal.Signals(-exitcode).name


def end(pid: int, seconds: float) -> None:
    """End a child of ours and wait for it: politely, then for sure."""
    deadline = time.monotonic() + seconds
    send(pid, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
            time.sleep(0.05)
        send(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
