"""How far a clock is from ours, of which one reading is known, on its way for a while."""

from __future__ import annotations


def skew(said: float, asked: float, heard: float) -> float:
    """Seconds by which it is ahead of ours, at the least; negative when it is behind.

    It was read between when it was asked and when it was heard, by our clock.
    """
    if said < asked:
        return said - asked
    return max(0.0, said - heard)
