"""Where something is that somebody has typed: exact matches first."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db.models import QuerySet

from unstuck import conf
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.filters import identified
from unstuck.models import DeadLetter, Node, OutboxMessage, TaskMinute, TaskRun
from unstuck.selection import (
    ROW_ID,
    SHORTEST_PREFIX,
    UUID_PREFIX,
    begins_with,
    begun_by,
    lettered,
    letters,
)

MOST_FOUND = 20
RUN_COLUMNS = ("task_id", "task_name", "ending", "node", "ended_at", "attempt")


@dataclass(frozen=True, slots=True)
class Found:
    """What fits, so far as this viewer may see it."""

    letters: list[DeadLetter] = field(default_factory=list)
    runs: list[TaskRun] = field(default_factory=list)
    waiting: list[OutboxMessage] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    task_name: str = ""
    """A task of exactly this name that has letters."""
    counted_name: str = ""
    """A task of exactly this name that has run of late."""

    @property
    def is_nothing(self) -> bool:
        """Whether there is none of all that."""
        lists = (self.letters, self.runs, self.waiting, self.nodes)
        return not any((*lists, self.task_name, self.counted_name))


def task(task_id: str, viewer: Viewer) -> Found:
    """Everything about the task with exactly this id."""
    return Found(
        letters=_letters(letters().filter(task_id=task_id), viewer),
        runs=_runs(task_id, viewer, "task_id"),
        waiting=_waiting(task_id, viewer),
    )


def exact_letter(text: str, viewer: Viewer) -> DeadLetter | None:
    """The letter with this letter id or row, if there is one."""
    if not viewer.may("unstuck.view_deadletter"):
        return None
    if begun_by(text).exists():
        return None  # It may be either: what is alike shows both.
    if ROW_ID.fullmatch(text):
        return letters().filter(pk=int(text)).only("pk").first()
    if UUID_PREFIX.fullmatch(text) and len(text) in {32, 36}:
        return letters().filter(lettered(text)).only("pk").first()
    return None


def alike(text: str, viewer: Viewer) -> Found:
    """What begins like this, or is called so."""
    name = ""
    if viewer.may("unstuck.view_deadletter"):
        named = letters().filter(task_name=text).order_by()
        name = text if named.exists() else ""
    return Found(
        # A filter takes what begins with digits for a row alone.
        letters=_letters(
            letters().filter(identified(text) | begins_with(text)), viewer
        ),
        runs=_runs(text, viewer, "task_id__startswith")
        if len(text) >= SHORTEST_PREFIX
        else [],
        nodes=_nodes(text, viewer),
        task_name=name,
        counted_name=text if _has_run(text, viewer) else "",
    )


def _has_run(name: str, viewer: Viewer) -> bool:
    if not viewer.may("unstuck.view_taskrun"):
        return False
    found = TaskMinute.objects.using(conf.current().database).filter(task_name=name)
    return found.order_by().exists()


def _letters(found: QuerySet[DeadLetter], viewer: Viewer) -> list[DeadLetter]:
    if not viewer.may("unstuck.view_deadletter"):
        return []
    columns = ("task_id", "task_name", "reason", "buried_at", "replayed_at")
    return list(found.only(*columns).order_by("-buried_at", "-pk")[:MOST_FOUND])


def _runs(text: str, viewer: Viewer, lookup: str) -> list[TaskRun]:
    if not viewer.may("unstuck.view_taskrun"):
        return []
    found = TaskRun.objects.using(conf.current().database).filter(**{lookup: text})
    return list(found.only(*RUN_COLUMNS).order_by("-ended_at", "-pk")[:MOST_FOUND])


def _waiting(task_id: str, viewer: Viewer) -> list[OutboxMessage]:
    if not viewer.may("unstuck.view_taskrun"):
        return []
    found = OutboxMessage.objects.using(conf.current().database)
    columns = ("task_id", "task_name", "queue", "written_at", "attempts")
    return list(found.filter(task_id=task_id).only(*columns)[:MOST_FOUND])


def _nodes(text: str, viewer: Viewer) -> list[Node]:
    if not viewer.may("unstuck.view_node"):
        return []
    found = Node.objects.using(conf.current().database)
    return list(found.filter(name__icontains=text)[:MOST_FOUND])
