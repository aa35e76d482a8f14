"""Old minutes are added up: over all nodes, then to quarters of an hour, then to hours.

What a page reads is bounded by that, and what the table takes: by the names of tasks and
the time, and not by the number of nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q

from unstuck.models import TaskMinute
from unstuck.recorder import minutes
from unstuck.recorder.database import writing

BATCH = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What becomes of rows of a certain age."""

    after: timedelta
    rows: Q
    """Those that have not become it yet."""

    minutes: int
    """How long is what they become, of all nodes together."""


STEPS = (
    Step(after=timedelta(hours=2), rows=Q(span_minutes=1), minutes=15),
    Step(after=timedelta(hours=25), rows=Q(span_minutes=15), minutes=60),
    Step(after=timedelta(minutes=5), rows=~Q(node=""), minutes=1),
)
"""As fine as charts of a day, of a week and of an hour are. What each of them looks for an
index finds."""


def add_up(now: datetime) -> bool:
    """Add some of the old rows to those that they become; says whether there are more.

    In one transaction: nothing is counted twice, and nothing is gone in between.
    """
    with writing() as alias:
        return any(_add_up(alias, step, now) for step in STEPS)


def _add_up(alias: str, step: Step, now: datetime) -> bool:
    # By task within a minute, so that many of a batch become one. Recorders lock the
    # rows of their node in the same order.
    stored = TaskMinute.objects.using(alias)
    old = stored.filter(step.rows, minute__lt=now - step.after)
    old = old.order_by("minute", "task_name", "queue")
    batch = list(old.select_for_update()[:BATCH])
    if not batch:
        return False
    minutes.add_rows(alias, [_longer(row, step.minutes) for row in batch])
    stored.filter(pk__in=[row.pk for row in batch]).delete()
    return True


def _longer(row: TaskMinute, span: int) -> TaskMinute:
    values = {name: getattr(row, name) for name in minutes.VALUES}
    first = row.minute.minute // span * span
    return TaskMinute(
        minute=row.minute.replace(minute=first, second=0, microsecond=0),
        span_minutes=span,
        node="",
        task_name=row.task_name,
        queue=row.queue,
        **values,
    )
