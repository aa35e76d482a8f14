"""How many tasks a worker can run, and how many it runs."""

from __future__ import annotations

from dataclasses import dataclass

from unstuck.pool.crew import Crew
from unstuck.pool.member import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What there is to run tasks with, at one moment."""

    slots: int
    """How many tasks may run at once."""

    free: int
    """How many more could begin now."""

    serving: int
    """How many children, or threads, are up."""

    longest_since: float | None
    """When the task that runs longest began, on the monotonic clock."""


def hands_of(crew: Crew) -> Hands:
    """Those of our pool. Tasks alone count, not the hooks of those that were killed."""
    with crew.lock:
        members = list(crew.members.values())
        idle = sum(member.is_free for member in members)
        running = [
            job.started
            for member in members
            if member.state is not State.KILLED
            and (job := member.current)
            and not job.extra
        ]
    begun = [started for started in running if started]
    return Hands(
        slots=crew.terms.limit,
        free=max(0, min(crew.terms.limit - len(running), idle)),
        serving=idle + len(running),
        longest_since=min(begun, default=None),
    )
