"""Which tasks are short: learnt from how long they took."""

from __future__ import annotations

SHORT_SECONDS = 0.02
CERTAIN_AFTER = 20
"""Short runs in a row before a task counts as short; one long run starts anew."""


class Pace:
    """Remembers, for each task name, how many short runs it had in a row."""

    def __init__(self) -> None:
        self._streaks: dict[str, int] = {}

    def learn(self, name: str, seconds: float) -> None:
        """A run took so long."""
        short = seconds < SHORT_SECONDS
        self._streaks[name] = self._streaks.get(name, 0) + 1 if short else 0

    def is_short(self, name: str) -> bool:
        """Whether a run can be expected to be over at once."""
        return self._streaks.get(name, 0) >= CERTAIN_AFTER
