"""What runs: what each node wrote down when it was seen last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from unstuck import conf
from unstuck.models import Node

MOST_NODES = 500
MOST_RUNS = 100
MOST_OF_TASK = 20
MOST_OF_ALL = 50_000
"""As many as so many nodes write down."""

COLUMNS = ("name", "state", "seen_at", "running")


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was going on when its node was seen last."""

    task_id: str
    task_name: str
    queue: str
    node: str
    pid: int | None
    started_at: datetime
    seen_at: datetime
    is_lost: bool
    """Its node is: the broker gives the message to another one."""
    soft: float | None
    hard: float | None

    @property
    def elapsed(self) -> float:
        """How long it had run when its node was seen last, in seconds."""
        return max(0.0, (self.seen_at - self.started_at).total_seconds())

    @property
    def limit(self) -> float | None:
        """What the whole bar stands for."""
        return self.hard or self.soft

    @property
    def used(self) -> int:
        """How much of its limit it has used, in per cent."""
        return min(100, int(100 * self.elapsed / self.limit)) if self.limit else 0

    @property
    def soft_mark(self) -> int | None:
        """Where on the bar the soft limit is."""
        if not (self.soft and self.hard and self.soft < self.hard):
            return None
        return int(100 * self.soft / self.hard)

    @property
    def level(self) -> str:
        """``fine``, ``late`` beyond the soft limit, ``over`` beyond the hard one."""
        if self.hard and self.elapsed >= self.hard:
            return "over"
        return "late" if self.soft and self.elapsed >= self.soft else "fine"


@dataclass(frozen=True, slots=True)
class Running:
    """The runs, the longest first, and how old that is."""

    runs: list[Run]
    more: int
    """Runs that are left out."""
    nodes: int
    """That tell what they run."""
    seen_at: datetime | None
    """The oldest word of one of them."""


def running(most: int | None = None) -> Running:
    """Of all nodes but those that have gone; ``most`` of them, if not ``MOST_RUNS``."""
    most = MOST_RUNS if most is None else most
    found = Node.objects.using(conf.current().database).exclude(state="gone")
    nodes = list(found.only(*COLUMNS).order_by("-seen_at")[:MOST_NODES])
    runs = [run for node in nodes for run in _runs(node)]
    runs.sort(key=lambda run: run.started_at)
    alive = [node.seen_at for node in nodes if not node.is_lost]
    return Running(
        runs=runs[:most],
        more=max(0, len(runs) - most),
        nodes=len(alive),
        seen_at=min(alive, default=None),
    )


def of_task(name: str) -> list[Run]:
    """The runs of one task, the longest first."""
    return [run for run in running(MOST_OF_ALL).runs if run.task_name == name][
        :MOST_OF_TASK
    ]


def _runs(node: Node) -> Iterator[Run]:
    for told in node.running:
        run = _run(node, told)
        if run is not None:
            yield run


def _run(node: Node, told: Mapping[str, Any]) -> Run | None:
    """``None`` for what another version wrote in other words."""
    try:
        return Run(
            task_id=str(told["task_id"]),
            task_name=str(told["task_name"]),
            queue=str(told.get("queue") or ""),
            node=node.name,
            pid=told.get("pid"),
            started_at=datetime.fromisoformat(told["started_at"]),
            seen_at=node.seen_at,
            is_lost=node.is_lost,
            soft=told.get("soft"),
            hard=told.get("hard"),
        )
    except (KeyError, TypeError, ValueError):
        return None
