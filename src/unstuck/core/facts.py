"""What a node saw, on its way to the recorder."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from unstuck.core.histogram import Histogram

MINUTE = timedelta(minutes=1)
MOST_KEYS = 1_000
OTHERS = "(others)"
"""The task name of what came when there were that many keys already."""


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
    """One run: each that did not simply succeed, and others if the project wants them."""

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
    waited_seconds: float | None = None
    """From when it could have run to when it did."""
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
    runtimes: str = ""
    """How many runs took how long: a ``Histogram`` on its way."""
    wait_seconds: float = 0.0
    """From when they could have run to when they did, of all runs together."""
    wait_max: float = 0.0
    waits: str = ""
    """How many runs waited how long: a ``Histogram`` on its way."""
    waits_unknown: int = 0
    """Runs of which nobody knows since when they could have run."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Running(_Fact):
    """What a node runs at this instant, and has run for a while."""

    instants = ("at",)

    at: datetime
    runs: Sequence[Mapping[str, Any]]
    """The oldest first: ``task_id``, ``task_name``, ``queue``, ``started_at``, the limits
    in force ``soft`` and ``hard`` in seconds, and ``pid``."""


Fact = Run | Minute | Incident | Running

KINDS: Mapping[str, type[Fact]] = {
    "run": Run,
    "minute": Minute,
    "incident": Incident,
    "running": Running,
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
    runtimes: Histogram = field(default_factory=Histogram)
    wait_seconds: float = 0.0
    wait_max: float = 0.0
    waits: Histogram = field(default_factory=Histogram)
    waits_unknown: int = 0
    rss_growth_bytes: int = 0
    swallowed: int = 0


class Minutes:
    """Adds up endings, per minute, task and queue; bounded however many tasks come."""

    def __init__(self, node: str = "") -> None:
        self._node = node
        self._minute = self._next = datetime.min.replace(tzinfo=UTC)
        self._sums: dict[tuple[datetime, str, str], _Sums] = {}

    def add(
        self,
        task_name: str,
        queue: str,
        ending: str,
        runtime_seconds: float | None,
        waited_seconds: float | None,
        rss_growth_bytes: int | None,
        swallowed: bool,
        now: datetime,
    ) -> None:
        """Count one run that ended now. ``None`` is unknown, and adds nothing.

        What has no runtime never ran, as far as is known, and so did not wait to.
        """
        # Called for each task in main: a microsecond, and it may not become many.
        if not self._minute <= now < self._next:
            self._minute = _minute(now)
            self._next = self._minute + MINUTE
        sums = self._sums.get((self._minute, task_name, queue))
        if sums is None:
            sums = self._new(self._minute, task_name, queue)
        sums.counts[ending] = sums.counts.get(ending, 0) + 1
        if runtime_seconds is not None:
            sums.runtime_seconds += runtime_seconds
            if runtime_seconds > sums.runtime_max:
                sums.runtime_max = runtime_seconds
            sums.runtimes.add(runtime_seconds)
            if waited_seconds is None:
                sums.waits_unknown += 1
            else:
                sums.wait_seconds += waited_seconds
                if waited_seconds > sums.wait_max:
                    sums.wait_max = waited_seconds
                sums.waits.add(waited_seconds)
        if rss_growth_bytes:
            sums.rss_growth_bytes += rss_growth_bytes
        sums.swallowed += swallowed

    def flush(self, now: datetime, everything: bool = False) -> list[Minute]:
        """The minutes that are over, each told once; all with ``everything``.

        A minute that is told before it is over is told again with what came after.
        """
        current = _minute(now)
        told = [key for key in self._sums if everything or key[0] < current]
        return [self._told(key) for key in told]

    def _new(self, minute: datetime, task_name: str, queue: str) -> _Sums:
        key = (minute, task_name, queue)
        if len(self._sums) >= MOST_KEYS:
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
            runtimes=sums.runtimes.to_wire(),
            wait_seconds=sums.wait_seconds,
            wait_max=sums.wait_max,
            waits=sums.waits.to_wire(),
            waits_unknown=sums.waits_unknown,
            rss_growth_bytes=sums.rss_growth_bytes,
            swallowed=sums.swallowed,
        )


def _minute(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(second=0, microsecond=0)
