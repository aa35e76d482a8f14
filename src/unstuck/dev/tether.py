"""Runs one command and leaves no process behind, whichever side ends first.

A tether stands between a parent and a command::

    parent -- tether -- command -- whatever the command starts

- The parent dies, SIGKILL included: the command gets SIGTERM, a second later
  everything below gets SIGKILL.
- The command ends: what it left behind gets SIGKILL, and the tether exits as the
  command did (128 + N when signal N killed it).
- SIGTERM, SIGINT and SIGHUP are passed on to the command alone, so that it can
  end its own children in its own order.
- SIGQUIT ends everything below at once.

The file is run by its path in an interpreter without `site`, so it imports the
standard library only and costs one small process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

PROC = Path("/proc")

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
END_NOW = signal.SIGQUIT
LISTENED_TO = (*PASSED_ON, END_NOW, signal.SIGCHLD)

ORPHAN_GRACE_SECONDS = 1.0
"""From the death of the parent to the SIGKILL of everything below."""
LOOK_SECONDS = 0.25
"""How often the parent is looked at: Linux alone could tell by itself, and its
PR_SET_PDEATHSIG means the starting thread, not the process."""
REAP_SECONDS = 2.0
"""How long killed processes may take to vanish (one may hang in the kernel)."""


def spawn(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` on a tether to this process; the result is the tether."""
    words = [os.fspath(word) for word in command]
    return subprocess.Popen(  # noqa: S603 - the caller names the command
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=None if env is None else dict(env),
        cwd=cwd,
        start_new_session=True,  # the terminal's Ctrl-C is for the parent to pass on
    )


def main(parent: int, command: Sequence[str]) -> int:
    """Run `command` until it or `parent` ends; the exit status to leave with."""
    wakeup = _listen()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans below come to us, not to init
    tether = _Tether(command)
    while tether.status is None:
        select.select([wakeup], [], [], LOOK_SECONDS)
        for number in _received(wakeup):
            tether.receive(number)
        tether.reap()
        if os.getppid() != parent:
            tether.end_orphaned()
    tether.kill_all()
    return tether.status


class _Tether:
    def __init__(self, command: Sequence[str]) -> None:
        self.status: int | None = None
        self._kill_at: float | None = None
        self._pid = _start(command)

    def receive(self, number: int) -> None:
        if number == END_NOW:
            self.kill_all()
        elif number in PASSED_ON:
            self._send(number)

    def end_orphaned(self) -> None:
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at = now + ORPHAN_GRACE_SECONDS
            self._send(signal.SIGTERM)
        elif now >= self._kill_at:
            self.kill_all()

    def kill_all(self) -> None:
        """SIGKILL everything below until nothing is left."""
        give_up_at = time.monotonic() + REAP_SECONDS
        while self._kill_once() and time.monotonic() < give_up_at:
            time.sleep(0.01)

    def reap(self) -> bool:
        """Collect what has ended; whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def _kill_once(self) -> bool:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if PROC.exists():
                for pid in descendants(os.getpid()):
                    os.kill(pid, signal.SIGKILL)
            else:
                os.killpg(self._pid, signal.SIGKILL)  # all that we know without /proc
        return self.reap()

    def _send(self, number: int) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)


def descendants(ancestor: int) -> list[int]:
    """The live processes below `ancestor`, as /proc has them."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    unseen = [ancestor]
    while unseen:
        below = children.pop(unseen.pop(), [])
        found += below
        unseen += below
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything, so look behind the last one.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (OSError, UnicodeDecodeError, ValueError):
            continue
        if state != "Z":
            yield int(stat.parent.name), int(parent)


def _start(command: Sequence[str]) -> int:
    parent = os.getpid()
    # A signal that comes before the command is one waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED_TO)
    pid = os.fork()
    if pid == 0:
        _become(command, parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LISTENED_TO)
    return pid


def _become(command: Sequence[str], parent: int) -> None:
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)
        signal.set_wakeup_fd(-1)
        for number in LISTENED_TO:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LISTENED_TO)
        os.execvp(command[0], list(command))  # noqa: S606 - no shell is meant
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _listen() -> int:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in LISTENED_TO:
        signal.signal(number, lambda *_: None)
    return reading


def _received(wakeup: int) -> bytes:
    try:
        return os.read(wakeup, 512)
    except BlockingIOError:
        return b""


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
