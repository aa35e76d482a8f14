"""Queues: what the fleet's recorder counted last, and who consumes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from unstuck import conf
from unstuck.dashboard.queries import archive
from unstuck.models import AuditEntry, Node, QueueSample
from unstuck.operations_queues import PAUSE, RESUME
from unstuck.recorder.chores import leader_now

WITHIN = timedelta(minutes=5)
"""A queue that was left out for so long, as the broker was slow, is still shown."""

FRESH = timedelta(minutes=1)
"""Numbers that are older stand still: nobody counts."""

MOST_SAMPLES = 5_000
MOST_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue, as far as it is known."""

    name: str
    sample: QueueSample
    """The newest; an empty one if it was not counted."""
    consumers: int | None
    """How many there are, if that was counted just now."""
    nodes: tuple[str, ...]
    """That are well and began with it."""
    paused_at: datetime | None
    """When nodes were told to pause it, and not to go on since."""
    is_dead: bool
    """It has the dead letters, which the recorder takes."""

    @property
    def is_abandoned(self) -> bool:
        """No worker is there for it."""
        return not (self.is_dead or self.nodes or self.consumers)

    @property
    def is_idle(self) -> bool:
        """Workers are there for it, and none of them consumes it."""
        return bool(self.nodes) and self.consumers == 0 and not self.is_dead


@dataclass(frozen=True, slots=True)
class Queues:
    """All queues, those in trouble first, and how old that is."""

    rows: list[Queue]
    at: datetime | None
    """When they were counted last."""
    is_fresh: bool
    leader: str
    """The node whose recorder counts; empty when none does."""


def queues(now: datetime, dead: str) -> Queues:
    """Those that were counted of late, and those of nodes that the archive knows.

    ``dead`` is the name of the queue of the dead letters.
    """
    alias = conf.current().database
    samples = _newest(alias)
    nodes = [node for node in archive.nodes() if node.condition != "gone"]
    names = sorted({*samples, *(name for node in nodes for name in node.queues)})
    pauses = _pauses(alias, names)
    fresh = {name for name, sample in samples.items() if now - sample.at < FRESH}
    rows = [
        Queue(
            name=name,
            sample=samples.get(name) or QueueSample(queue=name),
            consumers=samples[name].consumers if name in fresh else None,
            nodes=_consuming(name, nodes),
            paused_at=pauses.get(name),
            is_dead=name == dead,
        )
        for name in names
    ]
    rows.sort(key=lambda row: (not row.is_abandoned, not row.is_idle, row.is_dead))
    at = max((sample.at for sample in samples.values()), default=None)
    return Queues(
        rows=rows,
        at=at,
        is_fresh=bool(fresh),
        leader=leader_now(alias),
    )


def _newest(alias: str) -> Mapping[str, QueueSample]:
    samples = QueueSample.objects.using(alias)
    last = samples.order_by("-at").values_list("at", flat=True).first()
    if last is None:
        return {}
    found: dict[str, QueueSample] = {}
    for sample in samples.filter(at__gt=last - WITHIN).order_by("-at")[:MOST_SAMPLES]:
        found.setdefault(sample.queue, sample)
    return found


def _consuming(name: str, nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(
        sorted(
            node.name
            for node in nodes
            if name in node.queues and node.condition in {"ready", "starting"}
        )
    )


def _pauses(alias: str, names: Iterable[str]) -> Mapping[str, datetime]:
    """When each was paused, if that was the last that was done to it."""
    entries = AuditEntry.objects.using(alias).filter(
        what__in=(PAUSE, RESUME), target__in=[name[:255] for name in names]
    )
    last: dict[str, AuditEntry] = {}
    for entry in entries.only("what", "target", "at").order_by("-at", "-pk")[
        :MOST_ENTRIES
    ]:
        last.setdefault(entry.target, entry)
    return {name: entry.at for name, entry in last.items() if entry.what == PAUSE}
