"""The facts of one hand-over of one message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message as it was handed to one node, once."""

    task_id: str
    task_name: str
    queue: str

    attempt: int = 0
    """How many retries went before; the first run is attempt 0."""

    strikes: tuple[datetime, ...] = ()
    """When processes were lost under this message, oldest first."""

    unknown_since: datetime | None = None
    """When a node first met this message without knowing its task."""

    waits_since: datetime | None = None
    """When this attempt first found the lock of its task busy."""

    one_step: bool = False
    """Whether queueing the message again and acknowledging it is one step on its broker.

    Where it is two, a node that dies at once again can leave both the old and the new.
    """

    dice: float = 0.0
    """A random number in [0, 1), drawn once, for whatever needs jitter."""

    @property
    def deliveries(self) -> int:
        """How often this attempt was handed to a process, as far as can be known."""
        return len(self.strikes) + 1
