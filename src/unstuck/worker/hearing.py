"""Whether main is deaf: messages wait, it could take them, and takes none.

Judged by what is seen every few seconds, and rather too late than wrongly: whoever is
called deaf is connected anew, and then replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

DEAF_SECONDS = 30.0
DEAF_BESIDE_OTHERS_SECONDS = 300.0
"""While others take messages out of the same queues, one may be unlucky for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at one moment."""

    at: float
    waiting: int | None
    """Messages in the queues that main consumes; ``None`` when the broker did not say."""

    taken: int
    """How many messages main has been given so far."""

    may_take: bool
    """Whether it is connected, consumes, has room, and something is free to run them."""


class Hearing:
    """Compares each look with those before it."""

    def __init__(self) -> None:
        self._last: Look | None = None
        self._none_since: float | None = None
        """Since when messages wait at each look and none is taken."""

        self._still_since: float | None = None
        """Since when, on top of that, nobody else has taken one either."""

    def is_deaf(self, look: Look) -> bool:
        """Whether it has taken nothing for so long that it never will."""
        last, self._last = self._last, look
        if not (look.may_take and look.waiting) or last is None:
            self.begin_anew()
            return False
        if look.taken != last.taken:
            self.begin_anew()
        if self._none_since is None or self._still_since is None:
            self._none_since = self._still_since = look.at
        if look.waiting < (last.waiting or 0):
            self._still_since = look.at
        alone = look.at - self._still_since >= DEAF_SECONDS
        beside_others = look.at - self._none_since >= DEAF_BESIDE_OTHERS_SECONDS
        return alone or beside_others

    def begin_anew(self) -> None:
        """Forget the looks so far: something has been done about it."""
        self._none_since = self._still_since = None
