"""What a node saw, on its way to the recorder."""

from __future__ import annotations

import dataclasses
import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

MINUTE = timedelta(minutes=1)
MOST_KEYS = 1_000
OTHERS = "(others)"
"""The task name of what came when there were that many keys already."""

RUNTIME_BOUNDS = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0)
"""Seconds that divide runs by how long they took; what takes longer is the last part."""


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fact:
    instants: ClassVar[tuple[str, ...]]

    def to_wire(self) -> dict[str, Any]:
        """As plain data: the ``kind`` of fact and its ``fields``."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in self.instants:
            if fields[name] is not None:
                fields[name] = fields[name].isoformat()
        return {"kind": type(self).__name__.lower(), "fields": fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(_Fact):
    """One run that did not simply succeed."""

    instants = ("started_at", "ended_at")

    task_id: str
    task_name: str
    queue: str
    ending: str
    verdict: str
    """What becomes of the message: ``ack``, ``retry``, ``requeue`` or ``bury``."""
    ended_at: datetime
    started_at: datetime | None = None
    attempt: int = 1
    """Runs of this task, this one counted."""
    deliveries: int = 1
    """Hand-overs of this attempt, lost ones counted."""
    reason: str = ""
    """Why it was buried."""
    cause: str = ""
    """Why a process was lost, in words."""
    exception_type: str = ""
    exception_message: str = ""
    traceback: str = ""
    stack: str = ""
    """Where it stood when it was stopped from outside."""
    soft_stack: str = ""
    """Where it stood at its soft limit."""
    swallowed_soft_limit: bool = False
    """It caught its soft limit, and went on or returned."""
    waiting_for: str = ""
    """What the kernel said it waited for."""
    node: str = ""
    pid: int | None = None
    runtime_seconds: float | None = None
    rss_bytes: int | None = None
    rss_growth_bytes: int | None = None
    cpu_seconds: float | None = None
    child_age_seconds: float | None = None
    id: str = field(default_factory=_new_id)
    """One per run: whoever stores it twice finds it by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute(_Fact):
    """What happened to one task within a minute, or a part of it: parts add up."""

    instants = ("minute",)

    minute: datetime
    """Its first second, in UTC."""
    task_name: str
    queue: str
    counts: Mapping[str, int]
    """How many runs ended in which way."""
    node: str = ""
    runtime_seconds: float = 0.0
    """Of all runs together."""
    runtime_max: float = 0.0
    runtimes: Sequence[int] = field(default_factory=list)
    """How many runs took how long, divided by ``RUNTIME_BOUNDS``."""
    rss_growth_bytes: int = 0
    """Memory after each run minus memory before it, over all runs."""
    swallowed: int = 0
    """Runs that caught their soft limit and went on or returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident(_Fact):
    """Something that happened to a node rather than to a task."""

    instants = ("at",)

    kind: str
    """``stall``, ``main_lost``, ``recorder_lost``, ``crash_loop``, ``memory``, …"""
    at: datetime
    process: str
    """``main``, ``recorder`` or ``child``."""
    what: str
    """What happened and what was done, in one line."""
    node: str = ""
    pid: int | None = None
    stack: str = ""
    waiting_for: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=_new_id)


Fact = Run | Minute | Incident

KINDS: Mapping[str, type[Fact]] = {
    "run": Run,
    "minute": Minute,
    "incident": Incident,
}


def from_wire(wire: Mapping[str, Any]) -> Fact:
    """The inverse of ``to_wire``. Fields of a newer version are left out.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` for what is no fact.
    """
    kind = KINDS[wire["kind"]]
    known = {f.name for f in dataclasses.fields(kind)}
    fields = {name: v for name, v in dict(wire["fields"]).items() if name in known}
    for name in kind.instants:
        if fields.get(name) is not None:
            fields[name] = datetime.fromisoformat(fields[name])
    return kind(**fields)


@dataclass(slots=True)
class _Sums:
    counts: dict[str, int] = field(default_factory=dict)
    runtime_seconds: float = 0.0
    runtime_max: float = 0.0
    runtimes: list[int] = field(default_factory=lambda: [0] * (len(RUNTIME_BOUNDS) + 1))
    rss_growth_bytes: int = 0
    swallowed: int = 0


class Minutes:
    """Adds up endings, per minute, task and queue; bounded however many tasks come."""

    def __init__(self, node: str = "") -> None:
        self._node = node
        self._minute = datetime.min.replace(tzinfo=UTC)
        self._sums: dict[tuple[datetime, str, str], _Sums] = {}

    def add(
        self,
        task_name: str,
        queue: str,
        ending: str,
        runtime_seconds: float | None,
        rss_growth_bytes: int | None,
        swallowed: bool,
        now: datetime,
    ) -> None:
        """Count one run that ended now. ``None`` is unknown, and adds nothing."""
        if not self._minute <= now < self._minute + MINUTE:
            self._minute = _minute(now)
        sums = self._of(self._minute, task_name, queue)
        sums.counts[ending] = sums.counts.get(ending, 0) + 1
        if runtime_seconds is not None:
            sums.runtime_seconds += runtime_seconds
            sums.runtime_max = max(sums.runtime_max, runtime_seconds)
            sums.runtimes[bisect_right(RUNTIME_BOUNDS, runtime_seconds)] += 1
        sums.rss_growth_bytes += rss_growth_bytes or 0
        sums.swallowed += swallowed

    def flush(self, now: datetime, everything: bool = False) -> list[Minute]:
        """The minutes that are over, each told once; all with ``everything``.

        A minute that is told before it is over is told again with what came after.
        """
        current = _minute(now)
        told = [key for key in self._sums if everything or key[0] < current]
        return [self._told(key) for key in told]

    def _of(self, minute: datetime, task_name: str, queue: str) -> _Sums:
        key = (minute, task_name, queue)
        if key not in self._sums and len(self._sums) >= MOST_KEYS:
            key = (minute, OTHERS, "")
        return self._sums.setdefault(key, _Sums())

    def _told(self, key: tuple[datetime, str, str]) -> Minute:
        minute, task_name, queue = key
        sums = self._sums.pop(key)
        return Minute(
            minute=minute,
            task_name=task_name,
            queue=queue,
            node=self._node,
            counts=sums.counts,
            runtime_seconds=sums.runtime_seconds,
            runtime_max=sums.runtime_max,
            runtimes=sums.runtimes,
            rss_growth_bytes=sums.rss_growth_bytes,
            swallowed=sums.swallowed,
        )


def _minute(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(second=0, microsecond=0)
