"""Why a process ended, from what the kernel tells of it."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MIB = 2**20

CLOSE_TO_LIMIT = 0.9
"""The share of the memory limit from which a SIGKILL looks like a lack of memory."""

UNLIMITED = 2**60
"""cgroup v1 says "no limit" by a number near 2**63."""

CRASHES: Mapping[int, str] = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "arithmetic error",
    signal.SIGILL: "illegal instruction",
    signal.SIGABRT: "aborted",
}
"""Signals that a process brings upon itself."""

ENDED_BY_US: Mapping[str, str] = {
    "hard limit": "hard_limit",
    "memory: ": "memory_limit",
    "on request": "request",
    "shutdown": "shutdown",
}
"""Words of why we ended a child, and the kind that this is counted as."""

COUNTERS = ("memory.events", "memory.oom_control")
"""Where cgroups of version 2 and 1 count kills; neither has the other's file."""

LIMITS = ("memory.max", "memory.limit_in_bytes")

PROC = Path("/proc")
ROOT = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a process ended, as seen by the one that reaped it."""

    pid: int
    exitcode: int
    """As ``os.waitstatus_to_exitcode()`` says it: negative is a signal."""

    cpu_seconds: float
    peak_rss_bytes: int
    age_seconds: float
    oom_kills: int = 0
    """What the OOM killer killed since the last look; most likely this."""

    def to_wire(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Death:
        """The inverse of ``to_wire``."""
        return cls(**wire)


def cause_of(
    death: Death,
    *,
    ended_by_us: str = "",
    rss_bytes: int | None = None,
    memory_limit: int | None = None,
) -> str:
    """Why the process ended, in one line; what we did ourselves wins.

    ``rss_bytes`` is what it held when somebody last looked, ``memory_limit`` what all
    processes around it may hold together.
    """
    if ended_by_us:
        return ended_by_us
    if death.exitcode >= 0:
        return f"exited with code {death.exitcode}"
    number = -death.exitcode
    match number:
        case signal.SIGKILL:
            return _cause_of_sigkill(death, rss_bytes, memory_limit)
        case signal.SIGXCPU:
            return f"killed by SIGXCPU after {death.cpu_seconds:.0f} s of CPU time"
    if number in CRASHES:
        return f"crashed with {_name_of(number)} ({CRASHES[number]})"
    return f"killed by {_name_of(number)}"


def kind_of(death: Death, *, ended_by_us: str, busy: bool) -> str:
    """The same in one word of a few, to be counted; ``busy``: it ran a task."""
    if ended_by_us:
        known = [kind for words, kind in ENDED_BY_US.items() if words in ended_by_us]
        return known[0] if known else "other"
    if death.exitcode >= 0:
        return "exited" if death.exitcode or busy else "recycled"
    if -death.exitcode in CRASHES:
        return "crashed"
    return "out_of_memory" if death.oom_kills else "killed"


def _cause_of_sigkill(death: Death, rss: int | None, limit: int | None) -> str:
    if death.oom_kills:
        memory = _in_words(max(rss or 0, death.peak_rss_bytes), limit)
        return "out of memory (killed by the kernel's OOM killer)" + (
            f": {memory}" if memory else ""
        )
    last = death.peak_rss_bytes if rss is None else rss
    if limit and last >= CLOSE_TO_LIMIT * limit:
        return f"killed by SIGKILL, probably out of memory ({_in_words(last, limit)})"
    return "killed by SIGKILL from outside"


def _in_words(rss: int, limit: int | None) -> str:
    if not limit:
        return f"{rss / MIB:.0f} MiB" if rss else ""
    allowed = f"{limit / MIB:.0f} MiB allowed"
    return f"{rss / MIB:.0f} MiB of {allowed}" if rss else allowed


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Most of the real-time signals have no name.
        return f"signal {number}"


class OomKills:
    """Counts what the kernel's OOM killer killed around this process.

    Around it is its cgroup, and so its container; the whole machine where no cgroup
    counts.
    """

    def __init__(self, *, proc: Path = PROC, root: Path = ROOT) -> None:
        groups = _memory_groups(proc, root)
        candidates = [group / name for group in groups for name in COUNTERS]
        self._counter = next(
            (path for path in candidates if _kills_in(path) is not None),
            proc / "vmstat",
        )
        self._seen = _kills_in(self._counter) or 0

    def new(self) -> int:
        """How many since the last call; 0 where the kernel does not tell."""
        before = self._seen
        self._seen = _kills_in(self._counter) or 0
        return max(0, self._seen - before)


def memory_limit(*, proc: Path = PROC, root: Path = ROOT) -> int | None:
    """The nearest memory limit in bytes of a cgroup that this process is in."""
    for group in _memory_groups(proc, root):
        for name in LIMITS:
            limit = _number_in(group / name)
            if limit is not None and limit < UNLIMITED:
                return limit
    return None


def _memory_groups(proc: Path, root: Path) -> list[Path]:
    """The directories of our cgroup and of those above it, as far as we see them.

    See cgroups(7), proc_pid_cgroup(5) and proc_pid_mountinfo(5).
    """
    paths = _paths_of_groups(proc)
    return [
        directory
        for hierarchy, mounted, mount_point in _mounts(proc)
        if hierarchy in paths
        for directory in _upwards(
            root / mount_point.lstrip("/"), mounted, paths[hierarchy]
        )
    ]


def _paths_of_groups(proc: Path) -> dict[str, str]:
    """Our cgroup in each hierarchy that may know of memory; ``""`` is version 2."""
    paths = {}
    for line in _lines_of(proc / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths[""] = path
        elif "memory" in controllers.split(","):
            paths["memory"] = path
    return paths


def _mounts(proc: Path) -> Iterator[tuple[str, str, str]]:
    """Each such hierarchy: which of its cgroups is mounted, and where."""
    for line in _lines_of(proc / "self/mountinfo"):
        mount, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        mounted, mount_point = map(_unescaped, mount.split(" ")[3:5])
        if kind == "cgroup2":
            yield "", mounted, mount_point
        elif kind == "cgroup" and "memory" in options.split(","):
            yield "memory", mounted, mount_point


def _upwards(top: Path, mounted: str, path: str) -> list[Path]:
    """From the cgroup at ``path`` to ``top``, where the one at ``mounted`` is mounted.

    In a container ours may lie outside of what is mounted, and ``top`` stands for it.
    """
    group, base = PurePosixPath(path), PurePosixPath(mounted)
    if not group.is_relative_to(base):
        return [top]
    own = top / group.relative_to(base)
    if ".." in own.parts or not own.is_dir():
        return [top]
    return [each for each in (own, *own.parents) if each.is_relative_to(top)]


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _kills_in(path: Path) -> int | None:
    for line in _lines_of(path):
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return None


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number, and no limit.
        return None


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
