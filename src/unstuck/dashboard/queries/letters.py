"""Dead letters: a list, the groups of the same trouble, one with its relations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, Q, QuerySet

from unstuck import conf
from unstuck.dashboard.frames import Place, place_of
from unstuck.dashboard.paging import MOST_READ, newest
from unstuck.models import DeadLetter, TaskRun
from unstuck.selection import letters

LISTED = (
    "task_id",
    "task_name",
    "queue",
    "reason",
    "cause",
    "exception_type",
    "fingerprint",
    "attempts",
    "deliveries",
    "node",
    "buried_at",
    "replayed_at",
)
MOST_GROUPS = 30
MOST_LINKS = 5
"""In each direction of a chain of replays."""

MOST_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Letters of the same trouble."""

    fingerprint: str
    reason: str
    task_name: str
    tasks: int
    count: int
    first: datetime
    last: datetime
    exception_type: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class Groups:
    """The largest groups among the newest letters."""

    groups: list[Group]
    letters: int
    capped: bool
    """Whether there are more letters than were looked at."""

    more: bool = False
    """Whether there are more groups."""

    @property
    def total(self) -> str:
        """How many letters were looked at."""
        return f"{self.letters:,}{'+' if self.capped else ''}"


def listed(found: QuerySet[DeadLetter], *, messages: bool) -> QuerySet[DeadLetter]:
    """The same, of each the columns of a list; with what was said, if that may be seen."""
    return found.only(*LISTED, *(("exception_message",) if messages else ()))


def by_reason(found: QuerySet[DeadLetter]) -> tuple[dict[str, int], bool]:
    """How many of the newest letters were buried for which reason, most first."""
    recent, more = newest(found, "buried_at")
    rows = recent.values("reason").annotate(count=Count("pk")).order_by("-count")
    return {row["reason"]: row["count"] for row in rows}, more


def groups(
    found: QuerySet[DeadLetter], most: int = MOST_GROUPS, *, slow: Q | None = None
) -> Groups:
    """The newest of the letters by their trouble, the largest group first.

    Of these, where that is asked, those that fit ``slow``, which is to be read for.
    """
    recent, capped = newest(found, "buried_at")
    recent = recent.filter(slow or Q())
    total = recent.count() if slow or not capped else MOST_READ
    rows = list(
        recent.values("fingerprint")
        .annotate(
            count=Count("pk"),
            tasks=Count("task_name", distinct=True),
            task_name=Min("task_name"),
            reason=Min("reason"),
            first=Min("buried_at"),
            last=Max("buried_at"),
            newest=Max("pk"),
        )
        .order_by("-count", "-last")[: most + 1]
    )
    more, rows = len(rows) > most, rows[:most]
    examples = letters().filter(pk__in=[row["newest"] for row in rows])
    known = {
        letter.pk: letter
        for letter in examples.only("exception_type", "stack", "traceback")
    }
    return Groups(
        [_group(dict(row), known.get(row["newest"])) for row in rows],
        total,
        capped,
        more,
    )


def chain_of(letter: DeadLetter) -> list[DeadLetter]:
    """The letters that were replayed into one another, the first one first."""
    before = list(_followed(letter, "replay_of", "task_id"))[::-1]
    after = list(_followed(letter, "replayed_as", "task_id"))
    return [*before, letter, *after]


def runs_of(task_id: str) -> list[TaskRun]:
    """What is known of the runs of a task, the first one first."""
    if not task_id:
        return []
    found = TaskRun.objects.using(conf.current().database).filter(task_id=task_id)
    large = ("traceback", "stack", "soft_stack", "waiting_for")
    return list(found.defer(*large).order_by("-ended_at", "-pk")[:MOST_RUNS])[::-1]


def _group(row: Mapping[str, Any], example: DeadLetter | None) -> Group:
    stack = (example.stack or example.traceback) if example else ""
    return Group(
        fingerprint=row["fingerprint"],
        reason=row["reason"],
        task_name=row["task_name"],
        tasks=row["tasks"],
        count=row["count"],
        first=row["first"],
        last=row["last"],
        exception_type=example.exception_type if example else "",
        place=place_of(stack),
    )


def _followed(letter: DeadLetter, link: str, target: str) -> Iterator[DeadLetter]:
    seen = {letter.pk}
    current: DeadLetter | None = letter
    for _ in range(MOST_LINKS):
        value = getattr(current, link)
        if not value:
            return
        found = letters().filter(**{target: value}).order_by("-pk")
        current = found.only("task_id", "reason", "buried_at", *_LINKS).first()
        if current is None or current.pk in seen:
            return
        seen.add(current.pk)
        yield current


_LINKS = ("replay_of", "replayed_as", "replayed_at", "task_name")
