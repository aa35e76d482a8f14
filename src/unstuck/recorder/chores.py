"""What one recorder does for all: a table of chores, and whose turn it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta

from unstuck.core.clock import system_clock
from unstuck.fields import Fields
from unstuck.leases import Claim
from unstuck.models import Lease
from unstuck.recorder.database import remedy, writing

LEASE = "chores"
LEASE_LENGTH = timedelta(seconds=10)
"""So long a leader that says nothing is the leader."""

ASK_SECONDS = 3.0
"""How often the lease is asked for, or kept."""

AGAIN_SECONDS = 60.0
"""How soon at the latest a chore that failed is tried again."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Chore:
    """Something to do for the fleet now and then, a bounded part of it at a time."""

    name: str
    _: KW_ONLY
    every: float
    """Seconds."""

    work: Callable[[], bool]
    """Says whether there is more to do. Returns within about fifteen seconds."""

    first_after: float = 0.0
    """Seconds between becoming the leader and the first time."""

    due_at: float = field(default=0.0, init=False)
    is_failing: bool = field(default=False, init=False)


class Leader:
    """One of the recorders of a fleet does the chores; when it dies, the next one."""

    def __init__(
        self,
        node: str,
        chores: Sequence[Chore],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``node`` is the name of ours that others are told."""
        self._claim = Claim(LEASE, LEASE_LENGTH, writing, node)
        self._chores = chores
        self._monotonic = monotonic
        self._ask_at = self._until = self._since = monotonic()
        self.failed = 0
        """How often a chore has failed here."""

    @property
    def leads(self) -> bool:
        """Whether it is ours to do the chores now."""
        return self._monotonic() < self._until

    @property
    def led_seconds(self) -> float:
        """How long it has been without a break."""
        return self._monotonic() - self._since if self.leads else 0.0

    def work(self) -> bool:
        """Do the chore that is due for longest, if we lead; says whether more is due.

        Raises what the database raises when it cannot be asked who leads.
        """
        if self._monotonic() >= self._ask_at:
            self._ask()
        due = self._due()
        if due:
            self._do(due)
        return self._due() is not None

    def step_down(self) -> bool:
        """Let the next one lead at once; there is never more to do."""
        if self.leads:
            self._claim.give_up()
        self._until = self._monotonic()
        return False

    def _ask(self) -> None:
        now = self._monotonic()
        is_ours = self._claim.take()
        # Not before it has answered: a turn that asks nobody would pass for a success.
        self._ask_at = now + ASK_SECONDS
        if not is_ours:
            self._until = now
            return
        if not self.leads:
            self._since = now
            for chore in self._chores:
                chore.due_at = now + chore.first_after
        self._until = now + LEASE_LENGTH.total_seconds()

    def _due(self) -> Chore | None:
        if not self.leads:
            return None
        first = min(self._chores, key=lambda chore: chore.due_at, default=None)
        return first if first and first.due_at <= self._monotonic() else None

    def _do(self, chore: Chore) -> None:
        try:
            more = chore.work()
        except Exception as error:
            self._put_off(chore, error)
            return
        if chore.is_failing:
            logger.warning("A chore works again: %(fields)s", Fields(chore=chore.name))
            chore.is_failing = False
        chore.due_at = self._monotonic() + (0.0 if more else chore.every)

    def _put_off(self, chore: Chore, error: Exception) -> None:
        """Try it again later, and say so once."""
        wait = min(chore.every, AGAIN_SECONDS)
        chore.due_at = self._monotonic() + wait
        self.failed += 1
        if chore.is_failing:
            return
        chore.is_failing = True
        logger.error(
            "A chore failed, which is tried again: %(fields)s",
            Fields(chore=chore.name, every=wait, error=error, **remedy(error)),
        )


def leader_now(alias: str) -> str:
    """The node whose recorder does the chores; empty when none does."""
    rows = Lease.objects.using(alias).filter(name=LEASE, until__gt=system_clock())
    return rows.values_list("node", flat=True).first() or ""
