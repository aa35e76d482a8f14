"""Taking a lock: at once, or after a while, or not at all."""

from __future__ import annotations

import contextlib
import time

from unstuck import tracing
from unstuck.core.errors import LockError
from unstuck.locks import words
from unstuck.locks.backend import Backend, Busy, Owner, Taken

LONGEST_PAUSE = 0.5
"""Seconds; who waits asks so often even if nobody wakes it, and finds deadlocks."""

SHORTEST_PAUSE = 0.01


def take(
    backend: Backend, name: str, owner: Owner, *, lease: float, wait: float
) -> int:
    """Take a lock for an owner that does not hold it; its fence.

    Raises ``LockBusy``, ``DeadlockDetected`` and ``LocksUnreachable``.
    """
    if not wait:
        answer = backend.take(name, owner, lease)
        if isinstance(answer, Taken):
            return answer.fence
        raise words.busy(name, answer, wait)
    try:
        return _take_in_turn(backend, name, owner, lease=lease, wait=wait)
    except BaseException:
        # Also if the server was away: else it may be back and still know us as a waiter.
        with contextlib.suppress(LockError):
            backend.give_up(name, owner)
        raise


def _take_in_turn(
    backend: Backend, name: str, owner: Owner, *, lease: float, wait: float
) -> int:
    answer = backend.take(name, owner, lease, waits=True)
    if isinstance(answer, Taken):
        return answer.fence
    with tracing.waiting_for_lock(name, answer.held.owner.task_id):
        return _wait(backend, name, owner, answer, lease=lease, wait=wait)


def _wait(
    backend: Backend, name: str, owner: Owner, busy: Busy, *, lease: float, wait: float
) -> int:
    end = time.monotonic() + wait
    while True:
        if _is_youngest(owner, busy):
            raise words.deadlock(name, busy.cycle)
        left = end - time.monotonic()
        if left <= 0:
            raise words.busy(name, busy, wait)
        backend.wait(name, owner, min(left, _pause(busy)))
        answer = backend.take(name, owner, lease, waits=True)
        if isinstance(answer, Taken):
            return answer.fence
        busy = answer


def _is_youngest(owner: Owner, busy: Busy) -> bool:
    """Whether there is a deadlock, and it is for this owner to give way."""
    if not busy.cycle:
        return False
    youngest = max((other for _, other in busy.cycle), key=lambda o: (o.born, o.token))
    return youngest.token == owner.token


def _pause(busy: Busy) -> float:
    """Until the lease of the holder may be over, at the latest."""
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, busy.held.seconds_left))
