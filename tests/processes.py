"""Looking at processes by pid, whoever their parent is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def alive(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that still run; what only waits to be reaped does not."""
    return [pid for pid in pids if _state(pid) not in {"", "X", "Z"}]


def _state(pid: int) -> str:
    try:
        # The name in parentheses may hold anything, so look behind the last one.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
