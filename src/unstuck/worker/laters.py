"""What main has to do later, also when the connection is lost meanwhile.

Celery 5.6 empties the worker's timer whenever it connects anew; 5.7 does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False, slots=True)
class _Later:
    at: float
    function: Callable[[], None]
    entry: Any = None


class Laters:
    """Calls functions from the worker's timer, each once.

    ``beat`` is called before each: one that publishes may wait for the broker for long,
    and many are due together.
    """

    def __init__(self, timer: Any, beat: Callable[[], None]) -> None:
        self._timer = timer
        self._beat = beat
        self._waiting: set[_Later] = set()

    def add(self, seconds: float, function: Callable[[], None]) -> None:
        """Call ``function`` after so many seconds."""
        later = _Later(time.monotonic() + seconds, function)
        self._waiting.add(later)
        self._arm(later)

    def go_on(self) -> None:
        """Celery has a new connection: what its timer has forgotten is put there again."""
        for later in list(self._waiting):
            later.entry.cancel()
            self._arm(later)

    def _arm(self, later: _Later) -> None:
        seconds = max(0.0, later.at - time.monotonic())
        later.entry = self._timer.call_after(seconds, self._call, (later,))

    def _call(self, later: _Later) -> None:
        self._beat()
        self._waiting.discard(later)
        later.function()
