"""What the owners of this process hold, and how often each has asked for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from unstuck.locks.backend import Backend, Claim, Owner


@dataclass(slots=True, eq=False)
class Holding:
    """A lock that is held here."""

    claim: Claim
    owner: Owner
    fence: int
    lease: float
    backend: Backend
    renewed_at: float
    """Its lease lasts from then, or longer, by ``time.monotonic()``."""

    blocks: int = 1
    """How many blocks of its owner are within it; 0 while it is being given back."""

    lost: bool = False
    pid: int = field(default_factory=os.getpid)


_holdings: dict[Claim, Holding] = {}
_lock = threading.RLock()
"""Re-entrant, as a signal's handler may take locks too."""


def add(holding: Holding) -> None:
    """It is held from now on."""
    with _lock:
        _holdings[holding.claim] = holding


def enter(claim: Claim) -> Holding | None:
    """What the owner holds already, for one block more; ``None`` if it does not."""
    with _lock:
        holding = _holdings.get(claim)
        if holding is None or not holding.blocks:
            return None
        holding.blocks += 1
        return holding


def leave(holding: Holding) -> bool:
    """One block less; whether it was the last, and the lock is to be given back.

    It is known here until it is dropped, whatever interrupts who gives it back.
    """
    with _lock:
        holding.blocks -= 1
        if holding.blocks:
            return False
    # A process that was forked within the block leaves it too; the lock is its parent's.
    return holding.pid == os.getpid()


def drop(claim: Claim) -> None:
    """It is not held any more, whatever the blocks say."""
    with _lock:
        _holdings.pop(claim, None)


def all_of(owner: Owner) -> list[Holding]:
    """All that the owner holds."""
    with _lock:
        return [held for held in _holdings.values() if held.owner.token == owner.token]


def renew(claims: Collection[Claim], lease: float) -> None:
    """Let the leases of those that are held begin anew, and note what is lost.

    Raises ``LocksUnreachable``.
    """
    with _lock:
        held = [_holdings[claim] for claim in claims if claim in _holdings]
    for backend in {one.backend for one in held}:
        its = {one.claim: one for one in held if one.backend is backend}
        asked_at = time.monotonic()
        gone = backend.renew(its.keys(), lease)
        for claim, one in its.items():
            if claim in gone:
                _lose(one)
            else:
                one.renewed_at = asked_at


def _lose(holding: Holding) -> None:
    with _lock:
        # What is being given back, or was, could not be renewed, and was not lost.
        if _holdings.get(holding.claim) is holding and holding.blocks:
            holding.lost = True


def _forget() -> None:
    global _lock
    _lock = threading.RLock()
    _holdings.clear()


os.register_at_fork(after_in_child=_forget)
