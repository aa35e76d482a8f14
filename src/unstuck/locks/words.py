"""What is said of a lock that cannot be had or kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from unstuck.core.errors import DeadlockDetected, LockBusy, LockLost
from unstuck.locks.backend import Busy, Held, Owner

Cycle = Sequence[tuple[str, Owner]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has a lock."""

    task: str
    """The name of the task; empty outside tasks."""

    task_id: str
    node: str
    pid: int
    since: datetime

    @classmethod
    def of(cls, held: Held) -> Holder:
        """Who has that lock."""
        return cls(
            task=held.owner.task_name,
            task_id=held.owner.task_id,
            node=held.owner.node,
            pid=held.owner.pid,
            since=datetime.fromtimestamp(held.since, UTC),
        )


def named(owner: Owner) -> str:
    """An owner as a person can find it."""
    place = f"process {owner.pid} on {owner.node}"
    return f"{owner.task_name}[{owner.task_id}], {place}" if owner.task_id else place


def busy(name: str, busy: Busy, waited: float) -> LockBusy:
    """Somebody else has it."""
    holder = Holder.of(busy.held)
    since = f"{holder.since:%Y-%m-%d %H:%M:%S} UTC"
    waiting = f" It was waited for {waited:.3g} s." if waited else ""
    return LockBusy(
        f"The lock {name!r} is held by {named(busy.held.owner)}, since {since}.{waiting} "
        "Try again later, or give it more time (wait=, of a task lock_wait=); "
        "`manage.py unstuck locks list` shows who holds what.",
        name=name,
        holder=holder,
    )


def lost(name: str, lease: float, note: str = "") -> LockLost:
    """It is not ours any more. ``note``: who released it, and why, if that is known."""
    cause = (
        f"it was released by {note.rstrip('.')}"
        if note
        else f"its lease of {lease:g} s was over before it was renewed, or somebody "
        "released it"
    )
    return LockLost(
        f"The lock {name!r} was lost: {cause}. Another may have it and have done the same "
        "work: look whether what was done since still holds (a guarded write with the "
        "fence refuses what came too late).",
        name=name,
    )


def deadlock(name: str, cycle: Cycle) -> DeadlockDetected:
    """All who are in this wait for each other."""
    lines = [_line(cycle, place) for place in range(len(cycle))]
    told = "\n".join(lines)
    return DeadlockDetected(
        f"Waiting for the lock {name!r} would never end, as {len(cycle)} wait for each "
        f"other:\n{told}\nThe youngest of them gives way, and that is this one. Take the "
        "locks with lock.many([...]), or everywhere in the same order.",
        name=name,
        cycle=lines,
    )


def _line(cycle: Cycle, place: int) -> str:
    wanted, owner = cycle[place]
    has = cycle[place - 1][0]
    _, holder = cycle[(place + 1) % len(cycle)]
    return (
        f"{named(owner)} holds {has!r} and waits for {wanted!r}, which is held by "
        f"{named(holder)}"
    )
