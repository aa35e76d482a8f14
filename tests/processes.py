"""Looking at processes by pid, whoever their parent is."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import subprocess
from collections.abc import Iterable, Iterator

import pytest

SPARE_FILES = 40
"""So many in a row, above all that are in use."""


def alive(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that still run; what only waits to be reaped does not.

    In /proc a process is a zombie as soon as its first thread has ended. Until the last
    one has, its sockets are open, and a server may still hand a message to them.
    """
    return [pid for pid in pids if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # It is readable when all threads of the process have ended.
        return not select.select([descriptor], [], [], 0)[0]
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def room_for_files(number: int) -> Iterator[None]:
    """This process can open so many files more."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.dup(0)]
    # One gets the lowest number that is free: first all between those in use, then a row.
    while len(held) < SPARE_FILES or held[-SPARE_FILES] < highest:
        held.append(os.dup(0))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, limits[1]))
    try:
        for _ in range(number):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in held:
            os.close(file)


def in_namespace() -> tuple[str, ...]:
    """What runs a command as process 1, as containers do.

    Where that is not permitted, the test is skipped; in CI it fails.
    """
    prefix = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    is_there = shutil.which(prefix[0]) is not None
    if is_there and not subprocess.run([*prefix, "true"], check=False).returncode:
        return prefix
    message = "unshare --pid is not permitted here"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
