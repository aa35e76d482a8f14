"""What is known of a run beside its result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Evidence:
    """Collected while a run goes on and when it ends; empty is unknown."""

    stack: str = ""
    """Where the task stood when it was stopped from outside."""

    soft_stack: str = ""
    """Where it stood at its soft limit."""

    interrupted: bool = False
    """Whether the soft limit was raised in it."""

    waiting_for: str = ""
    """What the kernel said it waited for."""

    cause: str = ""
    """Why its process ended, in words."""

    rss_bytes: int | None = None
    rss_growth_bytes: int | None = None
    cpu_seconds: float | None = None
    child_age_seconds: float | None = None
