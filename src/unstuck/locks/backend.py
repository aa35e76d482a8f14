"""What keeps locks: the words that its callers and its kinds share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who takes locks: one run of a task, or one thread of another process."""

    token: str
    """No two owners ever have the same."""

    born: float
    """When it began, in seconds since 1970; of a cycle the one born last gives in."""

    pid: int
    node: str
    """Of the worker, or the name of the host."""

    task_id: str = ""
    task_name: str = ""


class Claim(NamedTuple):
    """A lock that an owner has, or is about to ask for."""

    name: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lock that somebody holds."""

    name: str
    owner: Owner
    since: float
    """In seconds since 1970."""

    fence: int
    seconds_left: float
    """Of its lease."""

    waiting: tuple[Owner, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """The lock is ours. Who asks again for what it holds is told the same fence."""

    fence: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else has it."""

    held: Held

    cycle: tuple[tuple[str, Owner], ...] = ()
    """If all wait for each other: the names waited for and who waits, beginning with us."""


class Backend(Protocol):
    """Keeps locks. Safe to be used by threads, and after a fork.

    Each method is atomic. Whatever goes wrong with the server is raised as
    ``LocksUnreachable``, within seconds.
    """

    def take(
        self, name: str, owner: Owner, lease: float, *, waits: bool = False
    ) -> Taken | Busy:
        """Take a lock for ``lease`` seconds, if it is free or its lease is over.

        ``waits``: the owner asks again soon, and is known as a waiter until then.
        """

    def wait(self, name: str, owner: Owner, seconds: float) -> None:
        """Return when the lock may be free, at the latest after so long."""

    def give_up(self, name: str, owner: Owner) -> None:
        """The owner no longer waits."""

    def renew(self, claims: Collection[Claim], lease: float) -> set[Claim]:
        """Let the leases begin anew; returns those that are not held, or no longer."""

    def release(self, claim: Claim) -> bool:
        """Let go; ``False`` if it was not held, or no longer."""

    def is_held(self, claim: Claim) -> bool:
        """Whether that owner holds that lock now."""

    def note(self, claim: Claim, notes: Mapping[str, str]) -> bool:
        """Write down what the next holder shall know; an empty text is forgotten.

        ``False``, and nothing is written, if that owner does not hold that lock now.
        """

    def notes(self, name: str) -> dict[str, str]:
        """All that the holders of a lock have written down; it outlives them."""

    def all_held(self) -> list[Held]:
        """All locks that are held now, by name."""

    def evict(
        self, name: str, note: str = "", *, fence: int | None = None
    ) -> Held | None:
        """Take a lock from whoever holds it; who that was.

        ``fence``: from the holder with that one, and from nobody else.
        ``note``: who does it and why, for its holder to read, where the audit does not
        lie beside the locks.
        """

    def note_on(self, name: str, fence: int) -> str:
        """Who took the lock from the holder with that fence, and why, if somebody did."""
