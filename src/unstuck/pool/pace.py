"""Which tasks are short: learnt from how long they took."""

from __future__ import annotations

import math
import time

SHORT_SECONDS = 0.02
CERTAIN_AFTER = 20
"""Short runs in a row before a task counts as short; one long run starts anew."""

TOGETHER_SECONDS = 0.05
"""How much work a child may have at once when all of it is short."""

MOST_TOGETHER = 64
FADES = 0.99
"""How much of the longest run is remembered after each shorter one."""

CALM_SECONDS = 1.0
"""After a long run, until short ones are expected again."""


class Pace:
    """Remembers, for each task name, how many short runs it had in a row."""

    def __init__(self) -> None:
        self._streaks: dict[str, int] = {}
        self._longest = SHORT_SECONDS
        """How long short runs took at most, lately."""

        self._calm_from = math.inf
        """When all runs have been short for long enough, on the monotonic clock."""

    def learn(self, name: str, seconds: float) -> None:
        """A run took so long."""
        short = seconds < SHORT_SECONDS
        self._streaks[name] = self._streaks.get(name, 0) + 1 if short else 0
        if not short:
            self._calm_from = time.monotonic() + CALM_SECONDS
            return
        self._longest = max(seconds, self._longest * FADES)
        if self._calm_from == math.inf:
            self._calm_from = 0.0

    def is_calm(self, now: float) -> bool:
        """Whether no run was long lately."""
        return now >= self._calm_from

    def at_once(self) -> int:
        """How many jobs a child may have at once when all of them are short."""
        return min(MOST_TOGETHER, int(TOGETHER_SECONDS / self._longest))

    def is_short(self, name: str) -> bool:
        """Whether a run can be expected to be over at once."""
        return self._streaks.get(name, 0) >= CERTAIN_AFTER
