"""Keep one process alive, from a clean image.

With Celery's own pools the supervisor is a child beside main: it is forked before there
is a pool, a thread or a connection, holds nothing, and forks what it keeps whenever that
has died. It ends with its parent, and what it keeps ends with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from unstuck.core.backoff import doubled

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=30)
STEADY_SECONDS = 60
"""A process that lived this long did not crash in a loop."""

POLL_SECONDS = 0.5
STOP_SECONDS = 10


@dataclass(slots=True)
class Supervisor:
    """A forked supervisor, seen from the process that forked it."""

    name: str
    pid: int

    @classmethod
    def fork(cls, name: str, work: Callable[[], None]) -> Supervisor:
        """Fork a supervisor that keeps a process alive which does ``work``."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(lambda: _keep_alive(name, work, parent), parent)
        return cls(name, pid)

    def start(self) -> None:
        """Nothing: it runs since it was forked."""

    def stop(self) -> None:
        """End the supervisor and what it keeps, within 10 seconds."""
        _end(self.pid, STOP_SECONDS)

    terminate = stop


def _become(work: Callable[[], None], parent: int) -> None:
    """Do ``work`` as the whole life of this freshly forked process."""
    status = 1
    try:
        _die_with(parent)
        work()
        status = 0
    except Exception:
        logger.exception("Process %s failed", os.getpid())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _die_with(parent: int) -> None:
    # The terminal's Ctrl-C goes to the whole group, but main says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _keep_alive(name: str, work: Callable[[], None], parent: int) -> None:
    stopping = _Stop()
    signal.signal(signal.SIGTERM, stopping)
    crashes = 0
    while not stopping.asked:
        started = time.monotonic()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(work, supervisor)
        status = _wait(pid, lambda: stopping.asked or os.getppid() != parent)
        if status is None:
            _end(pid, STOP_SECONDS / 2)
            return
        lived = time.monotonic() - started
        crashes = 0 if lived > STEADY_SECONDS else crashes + 1
        wait = doubled(FIRST_WAIT, max(crashes - 1, 0), LONGEST_WAIT).total_seconds()
        logger.error(
            "The %s (pid %s) ended with %s; a new one starts in %s s",
            name,
            pid,
            _in_words(status),
            wait,
        )
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and not stopping.asked:
            time.sleep(POLL_SECONDS)


class _Stop:
    """A signal handler that remembers that it was called."""

    asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True


def _wait(pid: int, given_up: Callable[[], bool]) -> int | None:
    while not given_up():
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(POLL_SECONDS)
    return None


def _end(pid: int, seconds: float) -> None:
    """End a child of this process: politely, then for sure."""
    deadline = time.monotonic() + seconds
    try:
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _in_words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
