"""The time limits of a task: those in force, and those that its history suggests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unstuck import project
from unstuck.app import Celery
from unstuck.core.histogram import Histogram, bounds
from unstuck.core.limits import SOFT_SHARE, Limits
from unstuck.dashboard.queries.minutes import Total

PERCENT = 99
FACTOR = 3
FEWEST_RUNS = 200
"""Of fewer, one in a hundred says little."""

ROUND = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1_200)
"""Seconds that people would write."""

QUARTER_HOUR = 900


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Limits that leave room above what was usual."""

    runs: int
    """How many it is based on."""
    usual: float = 0.0
    """The run time that one run in a hundred exceeds."""
    limits: Limits | None = None
    """``None``: too few runs."""
    longer: int = 0
    """How many of these runs took longer than would be allowed."""
    cut: int = 0
    """How many a limit has ended: how long they would have run nobody knows."""


def in_force(name: str) -> Limits | None:
    """As this process knows them; ``None`` when it does not know the task."""
    app = project.current_app()
    if not isinstance(app, Celery):
        return None
    task = project.task_of(app, name)
    return None if task is None else Limits(task.time_limit, task.soft_time_limit)


def suggested(total: Total) -> Suggestion:
    """By its slowest run in a hundred, times three, rounded up."""
    runs = total.runtimes.total
    usual = total.run(PERCENT)
    if usual is None or runs < FEWEST_RUNS:
        return Suggestion(runs, cut=total.limits)
    hard = rounded_up(usual * FACTOR)
    limits = Limits(hard=hard, soft=hard * SOFT_SHARE)
    return Suggestion(runs, usual, limits, _longer(total.runtimes, hard), total.limits)


def rounded_up(seconds: float) -> int:
    """The next number of seconds that people would write."""
    for each in ROUND:
        if seconds <= each:
            return each
    return math.ceil(seconds / QUARTER_HOUR) * QUARTER_HOUR


def _longer(runtimes: Histogram, seconds: float) -> int:
    return sum(
        count
        for bucket, count in runtimes.counts.items()
        if bounds(bucket)[0] >= seconds
    )
