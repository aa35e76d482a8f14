"""What a process asks the kernel of itself (prctl(2)); elsewhere than on Linux, nothing."""

from __future__ import annotations

import ctypes
import signal
import sys

LIBC = ctypes.CDLL(None)
"""Found once here and not by each process that is forked."""

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_PTRACER = 0x59616D61


def die_with_parent() -> None:
    """Have the kernel end this process when the one that forked it ends."""
    _ask(PR_SET_PDEATHSIG, signal.SIGKILL)


def call_us(name: str) -> None:
    """What ``ps -o comm`` shows of this process; 15 characters at most."""
    _ask(PR_SET_NAME, name.encode())


def let_look_at_us(pid: int) -> None:
    """Allow another process to see what this one waits for, where Yama forbids it."""
    _ask(PR_SET_PTRACER, pid)


def _ask(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        LIBC.prctl(option, value)
