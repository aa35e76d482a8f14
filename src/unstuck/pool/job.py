"""One job of the pool, as main sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unstuck.pool.evidence import Evidence


def nothing(*_: Any, **__: Any) -> None:
    """For whoever does not want to be called back."""


def always() -> bool:
    """For whoever never changes their mind."""
    return True


@dataclass(slots=True, weakref_slot=True, eq=False, kw_only=True)
class Job:
    """A call to be made in a child, and whom to tell of its end.

    The callbacks are those that Celery's pools have: all of them are called from the
    thread of the event loop.
    """

    number: int
    payload: bytes
    name: str
    """The task's, to learn from how long its runs take."""

    correlation_id: str = ""
    """The task's id."""

    hard: float | None = None
    soft: float | None = None
    """Limits in seconds; ``None`` is no limit."""

    extra: bool = False
    """Not a task: runs beside them, whatever the concurrency is."""

    accept_callback: Callable[..., Any] = nothing
    callback: Callable[..., Any] = nothing
    error_callback: Callable[..., Any] = nothing
    timeout_callback: Callable[..., Any] = nothing
    may_start: Callable[[], bool] = always
    """Asked at the last moment: a task may be revoked or expire while it waits."""

    started: float | None = None
    """When a child began with it, on the monotonic clock."""

    soft_done: bool = False
    """Whether the soft limit has been dealt with."""

    terminated: int = 0
    """The signal that it was ended with on somebody's request."""

    sent: bool = False
    """Whether a child has it, so that it may start at any moment."""

    cancelled: bool = False
    evidence: Evidence = field(default_factory=Evidence)

    def cancel(self) -> bool:
        """Take it out of the pool; ``False`` if a child may begin with it."""
        if not self.sent:
            self.cancelled = True
        return self.cancelled

    def terminate(self, signal: int) -> None:
        """Nothing: Celery tells the pool itself, through ``terminate_job``."""
