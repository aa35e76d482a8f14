"""Looking at processes by pid, whoever their parent is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest


def alive(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that still run; what only waits to be reaped does not."""
    return [pid for pid in pids if _state(pid) not in {"", "X", "Z"}]


def _state(pid: int) -> str:
    try:
        # The name in parentheses may hold anything, so look behind the last one.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


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
