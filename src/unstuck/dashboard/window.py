"""How far back a chart or a list looks, by the URL."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

HOUR, DAY = 3_600, 86_400

KNOWN = {"1h": (HOUR, 60), "24h": (DAY, 900), "7d": (7 * DAY, HOUR)}
"""Seconds in all, and those of one bucket: minutes and hours as stored fit into it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Equal buckets of time up to now; the last of them is not over."""

    name: str
    seconds: int
    step: int
    now: float

    @classmethod
    def of(
        cls, query: Mapping[str, str], choices: Sequence[str], now: float | None = None
    ) -> Window:
        """The one that ``window`` in the URL names; the first choice for any other."""
        asked = query.get("window", "")
        return cls.named(asked if asked in choices else choices[0], now)

    @classmethod
    def named(cls, name: str, now: float | None = None) -> Window:
        """One of ``KNOWN``."""
        return cls(name, *KNOWN[name], time.time() if now is None else now)

    @property
    def start(self) -> int:
        """When the first bucket begins, in seconds since 1970."""
        last = int(self.now) // self.step * self.step
        return last - self.seconds + self.step

    @property
    def since(self) -> datetime:
        """The same as an instant."""
        return datetime.fromtimestamp(self.start, UTC)

    @property
    def times(self) -> list[int]:
        """When each bucket begins."""
        return list(range(self.start, self.start + self.seconds, self.step))

    def place(self, at: datetime) -> int:
        """The bucket of an instant; what a fast clock wrote is in the last."""
        place = (int(at.timestamp()) - self.start) // self.step
        return min(max(place, 0), self.seconds // self.step - 1)
