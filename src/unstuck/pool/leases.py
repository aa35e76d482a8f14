"""The locks of children: main renews their leases while they live, and releases what they
held when they die.

A child announces what it is about to ask for, before it asks: so main knows of every lock
that a child may hold, at whatever instant it dies. It does not wait for an answer.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from unstuck.core.errors import LockError
from unstuck.fields import Fields
from unstuck.locks import backends, keeper
from unstuck.locks.backend import Backend, Claim
from unstuck.locks.keeper import RENEWALS, ThreadKeeper
from unstuck.pool import wire
from unstuck.pool.member import Member, State
from unstuck.pool.wire import Kind, Packet

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5
"""When to release once more what a dead child held: its last question may have been on
its way to the server when it died."""

TRY_AGAIN_SECONDS = 1.0
"""How soon to ask a server again that did not answer."""

LAST_SECONDS = 3.0
"""How long main may take at its end to release what its children held."""


class Announcer:
    """A child's keeper: says to main what it may hold.

    A thread of the child renews as well, for while main waits for a broker that is away;
    main does for while the child holds the interpreter.
    """

    def __init__(self, end: Any) -> None:
        self._end = end
        self._thread = ThreadKeeper()
        self._unsaid: set[Claim] = set()
        """What was given back, and main could not be told. It renews these still."""

    def install(self) -> None:
        """Keep the leases of this process, and of none that it forks."""
        keeper.use(self)
        os.register_at_fork(after_in_child=lambda: keeper.use(None))

    def begin(self, claim: Claim, lease: float, until: float | None) -> None:
        """From now on this child may hold that lock."""
        self._unsaid.discard(claim)
        self.catch_up()
        self._say(Kind.CLAIM, (*claim, lease, until))
        self._thread.begin(claim, lease, until)

    def end(self, claim: Claim) -> None:
        """It no longer does."""
        self._thread.end(claim)
        self._unsaid.add(claim)
        self.catch_up()

    def catch_up(self) -> None:
        """Say what did not fit before."""
        # Another thread may have said the last one meanwhile.
        with contextlib.suppress(KeyError):
            while self._unsaid:
                claim = self._unsaid.pop()
                if not self._say(Kind.UNCLAIM, tuple(claim)):
                    self._unsaid.add(claim)
                    return

    def _say(self, kind: Kind, what: tuple[Any, ...]) -> bool:
        """Whether it fits now: no task waits for main."""
        try:
            return wire.send(self._end, Packet(kind, 0, pickle.dumps(what)), wait=False)
        except wire.GoneError:
            logger.debug("Main is gone, and so will be this child")
            return True


@dataclass(slots=True)
class _Kept:
    lease: float
    until: float | None
    due: float

    def renewable(self, member: Member, now: float) -> bool:
        killed = member.state is State.KILLED
        return not killed and (self.until is None or now < self.until)


class Leases:
    """What the children of this node hold, or are about to ask for.

    All methods return at once; a thread asks the server.
    """

    def __init__(self, backend: Callable[[], Backend] = backends.current) -> None:
        self._backend = backend
        self._kept: dict[Member, dict[Claim, _Kept]] = {}
        self._releases: list[tuple[float, int, Claim, float]] = []
        """When to release which, and when it is over by itself."""

        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def hear(self, member: Member, packet: Packet) -> None:
        """A child has announced something."""
        said = pickle.loads(packet.payload)  # noqa: S301 - from our own child
        with self._changed:
            claims = self._kept.setdefault(member, {})
            if packet.kind is Kind.UNCLAIM:
                claims.pop(Claim(*said), None)
                return
            name, token, lease, until = said
            due = time.monotonic() + lease / RENEWALS
            claims[Claim(name, token)] = _Kept(lease, until, due)
            self._begin_work()

    def died(self, member: Member) -> None:
        """Release what it may have held: it is gone."""
        now = time.monotonic()
        with self._changed:
            claims = self._kept.pop(member, {})
            for claim, kept in claims.items():
                self._release(claim, (now, now + AGAIN_SECONDS), now + 2 * kept.lease)

    def release(self, claim: Claim, lease: float) -> None:
        """Release what this node knows to be over, whoever took it."""
        now = time.monotonic()
        with self._changed:
            self._release(claim, (now,), now + lease)

    def close(self) -> None:
        """Let go of everything: no child is left. Takes seconds at most."""
        for member in list(self._kept):
            self.died(member)
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread:
            self._thread.join(LAST_SECONDS)

    def _release(self, claim: Claim, at: Iterable[float], over_at: float) -> None:
        for when in at:
            entry = (when, next(self._numbers), claim, over_at)
            heapq.heappush(self._releases, entry)
        self._begin_work()

    def _begin_work(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="leases", daemon=True
            )
            self._thread.start()
        self._changed.notify()

    # The thread.

    def _run(self) -> None:
        while self._wait():
            try:
                self._release_due()
                self._renew_due()
            except Exception:
                # Other locks still need their leases.
                logger.exception("The leases of this node's locks stumbled")
                time.sleep(TRY_AGAIN_SECONDS)

    def _wait(self) -> bool:
        """Wait until there is something to do; ``False`` when there never will be."""
        with self._changed:
            while not self._closing:
                wait = self._next_at() - time.monotonic()
                if wait <= 0:
                    return True
                self._changed.wait(min(wait, threading.TIMEOUT_MAX))
            return bool(self._releases)

    def _next_at(self) -> float:
        now = time.monotonic()
        renewals = (k.due for m, _, k in self._all() if k.renewable(m, now))
        releases = (self._releases[0][0],) if self._releases else ()
        return min(itertools.chain(releases, renewals), default=float("inf"))

    def _all(self) -> list[tuple[Member, Claim, _Kept]]:
        return [
            (member, claim, kept)
            for member, claims in self._kept.items()
            for claim, kept in claims.items()
        ]

    def _release_due(self) -> None:
        while (entry := self._take_due_release()) is not None:
            _, number, claim, over_at = entry
            try:
                self._backend().release(claim)
            except LockError as error:
                logger.warning(
                    "A lock could not be released: %(fields)s",
                    Fields(lock=claim.name, error=error),
                )
                self._try_release_again(number, claim, over_at)
                return

    def _take_due_release(self) -> tuple[float, int, Claim, float] | None:
        with self._changed:
            now = time.monotonic()
            if self._releases and (self._closing or self._releases[0][0] <= now):
                return heapq.heappop(self._releases)
        return None

    def _try_release_again(self, number: int, claim: Claim, over_at: float) -> None:
        at = time.monotonic() + TRY_AGAIN_SECONDS
        with self._changed:
            if at < over_at and not self._closing:
                heapq.heappush(self._releases, (at, number, claim, over_at))

    def _renew_due(self) -> None:
        for lease, claims in self._take_due_renewals().items():
            try:
                # What is not held yet, or no longer, is the child's business.
                self._backend().renew(claims, lease)
            except LockError as error:
                logger.warning(
                    "Leases of locks could not be renewed: %(fields)s",
                    Fields(locks=len(claims), error=error),
                )
                self._renew_soon(claims)

    def _take_due_renewals(self) -> dict[float, list[Claim]]:
        """All claims whose leases are as long as one that is due, by that length."""
        with self._changed:
            now = time.monotonic()
            alive = [
                entry for entry in self._all() if entry[2].renewable(entry[0], now)
            ]
            due = {kept.lease for _, _, kept in alive if kept.due <= now}
            batches: dict[float, list[Claim]] = {lease: [] for lease in due}
            for _, claim, kept in alive:
                if kept.lease in due:
                    kept.due = now + kept.lease / RENEWALS
                    batches[kept.lease].append(claim)
            return batches

    def _renew_soon(self, claims: Iterable[Claim]) -> None:
        soon, wanted = time.monotonic() + TRY_AGAIN_SECONDS, set(claims)
        with self._changed:
            for _, claim, kept in self._all():
                if claim in wanted:
                    kept.due = min(kept.due, soon)
