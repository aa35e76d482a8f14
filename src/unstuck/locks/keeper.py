"""Who keeps the leases of what is held here; a thread of this process, unless told otherwise."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from unstuck.core.errors import LockError
from unstuck.fields import Fields
from unstuck.locks import holding
from unstuck.locks.backend import Claim

logger = logging.getLogger(__name__)

RENEWALS = 3
"""So many in the time of a lease: one or two may fail."""


class Keeper(Protocol):
    """Keeps leases, and is safe to be used by threads.

    A keeper in another process may renew a claim that is still asked for: what is not
    held yet cannot be renewed, which says nothing.
    """

    def begin(self, claim: Claim, lease: float, until: float | None) -> None:
        """The lock is about to be asked for; from now on this process may hold it.

        ``until``: the instant of ``time.monotonic()`` from which not to renew it.
        """

    def end(self, claim: Claim) -> None:
        """It was given back, or not got."""


@dataclass(slots=True)
class _Kept:
    lease: float
    until: float | None
    due: float


class ThreadKeeper:
    """Keeps leases by one thread, which is there only while something is held."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know of nothing: this process has just been forked."""
        self._changed = threading.Condition()
        self._kept: dict[Claim, _Kept] = {}
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def begin(self, claim: Claim, lease: float, until: float | None) -> None:
        """Renew that lease as soon as, and as long as, it is held."""
        due = time.monotonic() + lease / RENEWALS
        with self._changed:
            self._kept[claim] = _Kept(lease, until, due)
            if self._thread is None:
                self._start(due)
            elif due < self._wakes_at:
                self._changed.notify()

    def end(self, claim: Claim) -> None:
        """Renew it no longer. The thread notices when it wakes."""
        with self._changed:
            self._kept.pop(claim, None)

    def _start(self, due: float) -> None:
        thread = threading.Thread(
            target=self._run, name="unstuck lock keeper", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            # At the end of the interpreter, say. What is held now is held for one lease.
            logger.warning(
                "No thread renews the leases of locks: %(fields)s", Fields(error=error)
            )
        else:
            self._thread, self._wakes_at = thread, due

    def _run(self) -> None:
        while (due := self._wait()) is not None:
            self._renew(due)

    def _wait(self) -> dict[Claim, float] | None:
        """The claims to renew now, with their leases; ``None`` if there will be none."""
        with self._changed:
            while self._kept:
                now = time.monotonic()
                due = {
                    claim: kept.lease
                    for claim, kept in self._kept.items()
                    if kept.due <= now
                }
                if due:
                    self._put_off(due, now)
                    return due
                self._wakes_at = min(kept.due for kept in self._kept.values())
                self._changed.wait(self._wakes_at - now)
            self._thread = None
            return None

    def _put_off(self, due: dict[Claim, float], now: float) -> None:
        for claim, lease in list(due.items()):
            kept = self._kept[claim]
            kept.due = now + lease / RENEWALS
            if kept.until is not None and now >= kept.until:
                del self._kept[claim], due[claim]

    def _renew(self, due: dict[Claim, float]) -> None:
        for lease in set(due.values()):
            claims = [claim for claim, its in due.items() if its == lease]
            # The next round is early enough, and giving it back will say if it was not.
            with contextlib.suppress(LockError):
                holding.renew(claims, lease)


_default = ThreadKeeper()
_current: Keeper = _default


def current() -> Keeper:
    """Who keeps the leases of this process."""
    return _current


def use(keeper: Keeper | None) -> None:
    """Have another one keep the leases from now on; ``None`` for the thread again."""
    global _current
    _current = keeper or _default


def _after_fork() -> None:
    # Whoever kept the leases of our parent is not to hear of ours in its name.
    use(None)
    _default.forget()


os.register_at_fork(after_in_child=_after_fork)
