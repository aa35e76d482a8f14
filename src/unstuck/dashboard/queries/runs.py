"""What went wrong of late with one task."""

from __future__ import annotations

from unstuck import conf
from unstuck.dashboard.queries.find import RUN_COLUMNS
from unstuck.models import DeadLetter, TaskRun
from unstuck.selection import letters

MOST = 10


def troubled(name: str) -> list[TaskRun]:
    """The latest runs that did not succeed."""
    found = TaskRun.objects.using(conf.current().database).filter(task_name=name)
    found = found.exclude(ending="succeeded").only(*RUN_COLUMNS)
    return list(found.order_by("-ended_at", "-pk")[:MOST])


def letters_of(name: str) -> list[DeadLetter]:
    """The latest dead letters."""
    columns = ("task_id", "task_name", "reason", "buried_at", "replayed_at")
    found = letters().filter(task_name=name).only(*columns)
    return list(found.order_by("-buried_at", "-pk")[:MOST])
