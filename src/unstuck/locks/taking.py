"""Taking a lock for whoever runs here, and giving it back."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

from unstuck.core.errors import LockError, LockLost
from unstuck.fields import Fields
from unstuck.locks import backends, holding, keeper, owner, waiting, words
from unstuck.locks.backend import Backend, Claim
from unstuck.locks.holding import Holding

logger = logging.getLogger(__name__)


def take(name: str, *, wait: float, lease: float) -> Holding:
    """Take a lock, or enter what the owner of this code holds already.

    Raises ``LockBusy``, ``DeadlockDetected`` and ``LocksUnreachable``, and ``LockLost`` if
    the owner had it and has lost it.
    """
    who = owner.current()
    claim = Claim(name, who.token)
    held = holding.enter(claim)
    if held is None:
        return _take_anew(claim, wait=wait, lease=lease)
    if held.lost:
        holding.leave(held)
        raise loss_of(held)
    return held


def _take_anew(claim: Claim, *, wait: float, lease: float) -> Holding:
    who, backend, keeps = owner.current(), backends.current(), keeper.current()
    asked_at = time.monotonic()
    # First: whoever is killed from here on may hold it.
    keeps.begin(claim, lease, owner.deadline())
    try:
        fence = waiting.take(backend, claim.name, who, lease=lease, wait=wait)
        held = Holding(claim, who, fence, lease, backend, asked_at)
        holding.add(held)
    except BaseException as error:
        try:
            if not isinstance(error, LockError):
                # A soft limit, say, in the instant in which the server gave it to us.
                _release_quietly(backend, claim)
        finally:
            keeps.end(claim)
            holding.drop(claim)
        raise
    return held


def take_all(names: Sequence[str], *, wait: float, lease: float) -> list[Holding]:
    """Take all of them in that order, within the time for all, or none.

    Raises what ``take`` raises.
    """
    end = time.monotonic() + wait
    taken: list[Holding] = []
    try:
        for name in names:
            left = max(0.0, end - time.monotonic())
            taken.append(take(name, wait=left, lease=lease))
    except BaseException as error:
        give_back(taken, error)
        raise
    return taken


def give_back(held: Sequence[Holding], error: BaseException | None) -> None:
    """Leave the block that has these; with its owner's last block a lock is given back.

    Raises ``LockLost`` if one was lost meanwhile, and ``LocksUnreachable``; not if the
    block ends by an error, which is more important.
    """
    troubles: list[LockError] = []
    with contextlib.ExitStack() as stack:
        for one in held:
            stack.callback(_give_back, one, troubles)
    if error is None and troubles:
        raise troubles[0]
    for trouble in troubles:
        logger.warning(
            "A lock was in trouble in a block that ended by an error: %(fields)s",
            Fields(trouble=trouble, error=error),
        )


def loss_of(held: Holding) -> LockLost:
    """The lock is not held any more: what is known of that."""
    note = ""
    # Who cannot be asked has lost it all the same.
    with contextlib.suppress(LockError):
        note = held.backend.note_on(held.claim.name, held.fence)
    return words.lost(held.claim.name, held.lease, note)


def _give_back(held: Holding, troubles: list[LockError]) -> None:
    if holding.leave(held):
        try:
            held.lost = not held.backend.release(held.claim) or held.lost
        except LockError as error:
            troubles.append(error)
            return
        except BaseException:
            # It may have been interrupted before the server heard of it.
            _release_quietly(held.backend, held.claim)
            raise
        finally:
            keeper.current().end(held.claim)
            holding.drop(held.claim)
    if held.lost:
        troubles.append(loss_of(held))


def _release_quietly(backend: Backend, claim: Claim) -> None:
    with contextlib.suppress(LockError):
        backend.release(claim)
