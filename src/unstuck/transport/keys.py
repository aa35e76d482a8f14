"""What things are called on the server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

GROUP = "unstuck"
"""The consumer group of every stream."""

RETURNED = "r"
"""The step of what was given back: it is served before all others."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under one prefix (kombu's ``global_keyprefix``)."""

    prefix: str = ""

    @property
    def root(self) -> str:
        """What all of them begin with."""
        return f"{self.prefix}unstuck:"

    @property
    def queues(self) -> str:
        """A set: the queues that were ever declared."""
        return f"{self.root}queues"

    @property
    def due(self) -> str:
        """A sorted set: the queues that have delayed messages, by the earliest one."""
        return f"{self.root}due"

    def delayed(self, queue: str) -> str:
        """A sorted set: the delayed messages of a queue, by the milliseconds."""
        return f"{self.root}delayed:{queue}"

    def stream(self, queue: str, step: str | int) -> str:
        """The stream of a queue's messages of one priority step."""
        return f"{self.root}queue:{queue}:{step}"

    def streams_of(self, node: str) -> str:
        """A set: the streams that a node reads."""
        return f"{self.root}streams:{node}"


@lru_cache(maxsize=4096)
def queue_of(stream: str, root: str) -> str:
    """The queue that a stream belongs to."""
    return stream[len(root) + len("queue:") :].rpartition(":")[0]
