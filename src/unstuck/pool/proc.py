"""What /proc tells of a process; of one that is gone, nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

PROC = "/proc"
MOST_BYTES = 65536
COMMAND_LENGTH = 60

STATE, PARENT, USER_TICKS, SYSTEM_TICKS, START_TICKS = 0, 1, 11, 12, 19
"""Places in /proc/PID/stat, counted after the name of the program."""


def rss_of(pid: int) -> int | None:
    """The resident memory in bytes; of a zombie ``None``, it has none."""
    pages = read(f"{pid}/statm").split()[1:2]
    return int(pages[0]) * os.sysconf("SC_PAGE_SIZE") or None if pages else None


def cpu_seconds_of(pid: int) -> float | None:
    """The time that all its threads, dead ones counted, were on a CPU."""
    stat = _stat_of(pid)
    if not stat:
        return None
    return (int(stat[USER_TICKS]) + int(stat[SYSTEM_TICKS])) / _ticks_per_second()


def age_of(pid: int) -> float | None:
    """The seconds since it started."""
    stat = _stat_of(pid)
    if not stat:
        return None
    booted = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, booted - int(stat[START_TICKS]) / _ticks_per_second())


def state_of(pid: int) -> str:
    """The kernel's letter: R, S, D, T, t, Z and so on; empty when it is gone."""
    stat = _stat_of(pid)
    return stat[STATE] if stat else ""


def command_of(pid: int) -> str:
    """Its command line, cut to what identifies it."""
    words = ""
    if state_of(pid) != "D":  # Reading it needs a lock that one in D may hold for ever.
        words = " ".join(_text(f"{pid}/cmdline").replace("\0", " ").split())
    words = words or _text(f"{pid}/comm").strip()
    if len(words) > COMMAND_LENGTH:
        return words[: COMMAND_LENGTH - 1] + "…"
    return words


def children_of(pid: int) -> list[int]:
    """The processes that its main thread started and that it did not collect yet."""
    return [int(child) for child in read(f"{pid}/task/{pid}/children").split()]


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for a signal."""
    return _has_signal(pid, b"SigCgt", number)


def blocks(pid: int, number: int) -> bool:
    """Whether a signal waits until the process asks for it, as init programs do."""
    return _has_signal(pid, b"SigBlk", number)


def parent_of(pid: int) -> int:
    """The process that started it, or took it over; 0 when nobody here did."""
    stat = _stat_of(pid)
    return int(stat[PARENT]) if stat else 0


def peak_rss_of(pid: int) -> int | None:
    """The most resident memory that it has had, in bytes."""
    peak = re.search(rb"^VmHWM:\s*(\d+) kB", read(f"{pid}/status"), re.M)
    return int(peak[1]) * 1024 if peak else None


def descriptors_of(pid: int) -> tuple[int, int] | None:
    """How many it has, and may have; ``None`` if it is gone, or not ours to look at."""
    most = re.search(rb"^Max open files\s+(\d+)", read(f"{pid}/limits"), re.M)
    try:
        used = len(os.listdir(f"{PROC}/{pid}/fd"))
    except OSError:
        return None
    return (used, int(most[1])) if most else None


def descendants_of(pid: int) -> Iterator[int]:
    """What its threads have started, what that has started, and so on."""
    try:
        threads = os.listdir(f"{PROC}/{pid}/task")
    except OSError:
        return
    for thread in threads:
        for child in read(f"{pid}/task/{thread}/children").split():
            yield int(child)
            yield from descendants_of(int(child))


def read(place: str, most: int = MOST_BYTES) -> bytes:
    """The first bytes of a file below /proc, none of one that cannot be read."""
    try:
        with open(f"{PROC}/{place}", "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def _has_signal(pid: int, line: bytes, number: int) -> bool:
    found = re.search(rb"^%s:\s*(\w+)" % line, read(f"{pid}/status"), re.M)
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


def _text(place: str) -> str:
    return read(place).decode("utf-8", "replace")


def _stat_of(pid: int) -> list[str]:
    # The program's name stands in brackets and may contain anything, even brackets.
    return _text(f"{pid}/stat").rpartition(")")[2].split()


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
