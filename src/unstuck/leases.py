"""A lease is a row: who has it does alone what it is for; when it is silent, the next.

No transaction stays open meanwhile, so anything may be waited for under a lease.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime, timedelta

from django.db import Error, transaction
from django.db.models import Q, QuerySet

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.models import Lease

Step = Callable[[], AbstractContextManager[object]]
"""What is done with the database in one go."""


class Claim:
    """One who wants a lease, has it, or has had it."""

    def __init__(
        self, name: str, length: timedelta, step: Step = nullcontext, node: str = ""
    ) -> None:
        """``length``: so long it is ours without a word. ``node`` is shown to people."""
        self._name, self._length, self._step, self._node = name, length, step, node
        self._holder = uuid.uuid4().hex

    def take(self) -> bool:
        """Take the lease if nobody has it, or keep it; says whether it is ours.

        Raises what the database raises.
        """
        with self._step():
            return self._take()

    def give_up(self) -> None:
        """Let somebody else have it at once; a database that is away sees it end."""
        with suppress(Error), self._step():
            self._rows().filter(holder=self._holder).update(until=system_clock())

    def _take(self) -> bool:
        now = system_clock()
        rows = self._rows()
        free = rows.filter(Q(until__lt=now) | Q(holder=self._holder))
        # Asking costs less than writing, and most of the time another one has it.
        if free.exists():
            return bool(free.update(**self._ours(now)))
        if rows.exists():
            return False
        with transaction.atomic(using=rows.db):
            first = Lease(name=self._name, **self._ours(now))
            Lease.objects.using(rows.db).bulk_create([first], ignore_conflicts=True)
        return rows.filter(holder=self._holder).exists()

    def _ours(self, now: datetime) -> dict[str, object]:
        until = now + self._length
        return {"holder": self._holder, "node": self._node, "until": until}

    def _rows(self) -> QuerySet[Lease]:
        return Lease.objects.using(conf.current().database).filter(name=self._name)


@contextmanager
def alone(name: str, length: timedelta, step: Step = nullcontext) -> Iterator[bool]:
    """Whether this process has the lease; nobody else has it within."""
    claim = Claim(name, length, step)
    taken = claim.take()
    try:
        yield taken
    finally:
        if taken:
            claim.give_up()
