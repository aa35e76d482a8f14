"""Endings whose acknowledgement may have been lost with the connection.

The broker hands such a message out again, and it must not run again. What is remembered
is remembered for a short while only: a task id may be used again on purpose.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque

from unstuck.core.delivery import Delivery
from unstuck.core.verdict import Requeue, Verdict

DOUBT_SECONDS = 10
"""How far back a lost connection puts acknowledgements in doubt."""

REMEMBER_SECONDS = 600
MOST = 10_000

Key = tuple[object, ...]


class Echoes:
    """Knows a message that has come to its end here."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, Key]] = deque(maxlen=MOST)
        self._doubtful: OrderedDict[Key, float] = OrderedDict()

    def settled(self, delivery: Delivery, verdict: Verdict, *, in_time: bool) -> None:
        """A delivery was settled; ``in_time`` says: on the connection it came by."""
        if isinstance(verdict, Requeue):
            return  # It is to come again.
        key = _key(delivery)
        if in_time:
            self._recent.append((time.monotonic(), key))
        else:
            self._doubt(key)

    def connection_lost(self) -> None:
        """What was acknowledged just now may not have arrived."""
        since = time.monotonic() - DOUBT_SECONDS
        for at, key in self._recent:
            if at >= since:
                self._doubt(key)
        self._recent.clear()

    def knows(self, delivery: Delivery) -> bool:
        """Whether this very delivery has come to its end here."""
        at = self._doubtful.get(_key(delivery))
        return at is not None and time.monotonic() - at < REMEMBER_SECONDS

    def _doubt(self, key: Key) -> None:
        self._doubtful[key] = time.monotonic()
        while len(self._doubtful) > MOST:
            self._doubtful.popitem(last=False)


def _key(delivery: Delivery) -> Key:
    # A message that was queued again carries other strikes.
    return (delivery.task_id, delivery.attempt, delivery.strikes)
