"""How many children there are to be: when others are born, and who leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unstuck.pool.births import Births
from unstuck.pool.member import Member, State
from unstuck.pool.nursery import Nursery
from unstuck.pool.terms import Terms

LEAVE_SECONDS = 10
"""How long a child may take to exit when it is asked to."""


class Staff:
    """Has children come and go as the terms say. ``extras`` tells how many jobs wait that
    are no tasks: they run beside those."""

    def __init__(
        self,
        nursery: Nursery,
        terms: Terms,
        members: Mapping[int, Member],
        extras: Callable[[], int],
    ) -> None:
        self.births = Births(nursery)
        self._terms = terms
        self._members = members
        self._extras = extras

    # Who comes.

    def replenish(self) -> None:
        """Ask for as many children as are missing."""
        if self.births.census_is_due():
            there = self.births.coming + self._staying()
            self.births.ask(max(0, self._wanted() - there))

    def count_anew(self) -> None:
        """Something has changed: somebody may be missing."""
        self.births.count_anew()
        self.replenish()

    def _wanted(self) -> int:
        if self._terms.closed:
            return 0
        extras = self._extras() + sum(
            bool((job := m.current) and job.extra) for m in list(self._members.values())
        )
        most = max(2, self._terms.limit // 4)
        return self._terms.limit + self._terms.spares + min(extras, most)

    def _staying(self) -> int:
        """The children that will still be there in a moment."""
        most = self._terms.tasks_per_child
        soon = most - max(1, most // 10) if most else None
        return sum(
            m.state in (State.STARTING, State.SERVING)
            and not (soon is not None and m.given > soon)
            for m in list(self._members.values())
        )

    # Who leaves.

    def is_fat(self, member: Member) -> bool:
        """Whether it uses more memory than it may."""
        memory = self._terms.memory_bytes
        return bool(memory and member.rss and member.rss > memory)

    def dismiss_if_due(self, member: Member) -> None:
        """Let a child go that has done its share, if it is free."""
        most = self._terms.tasks_per_child
        worn = bool(most and member.given >= most)
        enough = self._terms.limit + self._terms.spares
        surplus = len(self._members) > enough and self._has_too_many()
        if not member.is_free:
            return
        if surplus:
            member.ask_to_leave(LEAVE_SECONDS)
        elif worn or self.is_fat(member):
            member.state = State.WORN
            self.count_anew()
            self.relieve_worn()

    def dismiss_surplus(self) -> None:
        """Let free children go while there are too many."""
        for member in list(self._members.values()):
            if self._has_too_many() and member.is_free:
                member.ask_to_leave(LEAVE_SECONDS)

    def relieve_worn(self) -> None:
        """Let those go that have done their share, as far as others are up."""
        worn = [m for m in self._members.values() if m.state is State.WORN]
        serving = sum(m.state is State.SERVING for m in self._members.values())
        for member in worn[: max(0, serving + len(worn) - self._terms.limit)]:
            member.ask_to_leave(LEAVE_SECONDS)

    def renew(self) -> None:
        """Replace every child, each as soon as it is free."""
        for member in list(self._members.values()):
            member.ask_to_leave(max(LEAVE_SECONDS, _seconds_it_may_run(member)))
        self.count_anew()

    def dismiss_all(self) -> None:
        """Let all children exit."""
        for member in list(self._members.values()):
            member.ask_to_leave(LEAVE_SECONDS)

    def _has_too_many(self) -> bool:
        return self._staying() > self._wanted()


def _seconds_it_may_run(member: Member) -> float:
    limits = [job.hard or float("inf") for job in member.jobs]
    return sum(limits)
