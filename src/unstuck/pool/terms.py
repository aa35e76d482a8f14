"""What holds for the children of a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Terms:
    """The numbers that the crew keeps to; they may change while it works."""

    limit: int
    """How many tasks run at once."""

    spares: int = 1
    """Children beyond that, forked ahead of need."""

    tasks_per_child: int | None = None
    memory_bytes: int | None = None
    """A child that has grown beyond it is replaced; at twice as much it is killed."""

    threaded: bool = False
    """Whether a thread of the pool's own does what the event loop does elsewhere."""

    closed: bool = False
    """No more children: the node is about to stop."""
