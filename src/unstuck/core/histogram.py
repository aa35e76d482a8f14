"""How long things took, counted so that any percentile can be told later.

Each power of two of a second is divided into eight buckets, so a bucket is at most an
eighth of what is in it wide, from a tenth of a millisecond to twelve days. Histograms
add up: what nodes and minutes counted apart is one histogram for whoever asks.

The wire form is a text, ``bucket:count`` with spaces between, empty buckets left out. It
is the same in a datagram, in a column and in a backup; a person can read it, and Python
reads it faster than anything packed into bytes, which would save a hundred bytes a row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from math import frexp

SHARES = 8
"""Buckets of a power of two."""

LEAST_EXPONENT = -13
LEAST = 2.0**LEAST_EXPONENT
"""Seconds; what is shorter is in bucket 0."""

MOST = 2.0**20
"""Seconds; what takes so long, or is no number, is in the last bucket."""

SHIFT = 1 - SHARES - SHARES * (LEAST_EXPONENT + 1)
"""``frexp`` gives a fraction from 1/2 and an exponent that is one more than ours."""

LAST = SHARES * 21 + SHARES + SHIFT


class Histogram:
    """Counts by bucket."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Histogram:
        """All of these in one. Raises ``ValueError`` for what is none."""
        histogram = cls()
        histogram.merge(" ".join(texts))
        return histogram

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        if seconds < LEAST:
            bucket = 0
        elif seconds < MOST:
            fraction, exponent = frexp(seconds)
            bucket = SHARES * exponent + int(2 * SHARES * fraction) + SHIFT
        else:
            bucket = LAST
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, text: str) -> None:
        """Add what others have counted, one or many with spaces between.

        Raises ``ValueError`` for what is none.
        """
        counts = self.counts
        # Of thousands of texts most pairs are alike, and each is read once.
        for pair, times in Counter(text.split()).items():
            bucket, _, count = pair.partition(":")
            number = int(bucket)
            counts[number] = counts.get(number, 0) + int(count) * times

    def to_wire(self) -> str:
        """As a text that ``merge`` reads."""
        return " ".join([f"{bucket}:{n}" for bucket, n in sorted(self.counts.items())])

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts.values())

    def percentile(self, percent: float) -> float | None:
        """So many percent took no longer, in seconds; ``None`` when nothing was counted.

        At most a sixteenth off, as the middle of a bucket stands for all that is in it.
        """
        return self.percentiles([percent])[0]

    def percentiles(self, percents: Sequence[float]) -> list[float | None]:
        """The same for several percents, which ascend."""
        total, passed = self.total, 0
        ranks = [max(1, math.ceil(total * percent / 100)) for percent in percents]
        found: list[float | None] = []
        for bucket, count in sorted(self.counts.items()):
            passed += count
            while ranks and passed >= ranks[0]:
                del ranks[0]
                low, high = bounds(bucket)
                found.append((low + high) / 2)
        return [*found, *[None] * len(ranks)]


def bounds(bucket: int) -> tuple[float, float]:
    """What is in a bucket: at least the first, less than the second, in seconds.

    The last one has no end; what is said to be it is where another one would end.
    """
    if bucket <= 0:
        return 0.0, LEAST
    power, share = divmod(bucket - 1, SHARES)
    one = 2.0 ** (LEAST_EXPONENT + power)
    width = one / SHARES
    return one + share * width, one + (share + 1) * width
