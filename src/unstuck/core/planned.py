"""What waits for its time: a run that is planned, and why it is not now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from unstuck.core.delivery import Delivery


class Why(StrEnum):
    """Why a run is not now."""

    ETA = "eta"
    RETRY = "retry"
    LOCK = "lock"
    UNKNOWN_TASK = "unknown_task"
    LOST = "lost"
    OUTBOX = "outbox"


class Where(StrEnum):
    """Where it waits."""

    BROKER = "broker"
    NODE = "node"
    OUTBOX = "outbox"
    LOCK = "lock"
    """In a process, for a lock that somebody else holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A run that waits for its time."""

    task_id: str
    task_name: str
    queue: str
    where: Where
    why: Why = Why.ETA
    due_at: datetime | None = None
    """``None`` of what nobody can tell: when a lock is free, say."""

    attempt: int = 1
    """The number of this run; the first one is 1."""

    node: str = ""
    lock: str = ""
    """The name of the lock that it waits for."""

    arguments: tuple[Any, Any] | None = None
    """Positional and by name, redacted; ``None`` if they were not asked for, or cannot be
    read."""

    @classmethod
    def of(cls, delivery: Delivery, where: Where, **facts: Any) -> Planned:
        """What a message says of itself, and what else is known."""
        return cls(
            task_id=delivery.task_id,
            task_name=delivery.task_name,
            queue=delivery.queue,
            where=where,
            why=why_of(delivery),
            attempt=delivery.attempt + 1,
            **facts,
        )

    def to_wire(self) -> dict[str, Any]:
        """As plain data."""
        due_at = self.due_at.isoformat() if self.due_at else None
        return {**asdict(self), "due_at": due_at}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Planned:
        """The inverse. Raises what odd data raises: it may be of another version."""
        due_at, arguments = wire["due_at"], wire["arguments"]
        known = {
            **wire,
            "where": Where(wire["where"]),
            "why": Why(wire["why"]),
            "due_at": datetime.fromisoformat(due_at) if due_at else None,
            "arguments": tuple(arguments) if arguments is not None else None,
        }
        return cls(**known)


def why_of(delivery: Delivery) -> Why:
    """What keeps a message that is queued for later."""
    if delivery.waits_since:
        return Why.LOCK
    if delivery.unknown_since:
        return Why.UNKNOWN_TASK
    if delivery.attempt:
        return Why.RETRY
    return Why.LOST if delivery.strikes else Why.ETA
