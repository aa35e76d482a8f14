"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

LONGEST_DOUBLING = 62
"""Beyond this exponent the wait is over the maximum anyway; it keeps the float finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDelay:
    """The wait before a retry: constant, or doubling with full jitter."""

    initial: timedelta
    """The wait before the first retry."""

    doubles: bool = False
    """Whether each further retry waits twice as long as the one before."""

    maximum: timedelta = timedelta(hours=1)
    """No doubled wait is longer than this. A constant one is as long as it says."""

    jitter: bool = True
    """Whether a doubled wait is drawn from all between zero and its length.

    See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def after(self, attempt: int, dice: float) -> timedelta:
        """The wait after ``attempt`` failed (the first is 0).

        ``dice`` is a random number in [0, 1).
        """
        if not self.doubles:
            return self.initial
        wait = doubled(self.initial, attempt, self.maximum)
        return wait * dice if self.jitter else wait


def doubled(initial: timedelta, times: int, maximum: timedelta) -> timedelta:
    """``initial`` doubled that many times, but never above ``maximum``."""
    seconds = initial.total_seconds() * 2.0 ** min(times, LONGEST_DOUBLING)
    return timedelta(seconds=min(seconds, maximum.total_seconds()))
