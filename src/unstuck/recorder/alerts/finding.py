"""What is to be told just now, condition by condition, by what is in the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Exists, Max, Min, OuterRef, QuerySet

from unstuck.models import DeadLetter, Incident, Node, PeriodicEntry, QueueSample

NEW_WITHIN = timedelta(hours=1)
"""A fingerprint is new when its first letter was archived so lately."""

SAMPLES_WITHIN = timedelta(seconds=60)
"""What was last seen of a queue before is not known any more."""

OF_QUEUES = ("queue_older_than", "queue_without_worker")
"""Conditions whose subject is a queue."""

QUEUE_KNOWN_FOR = timedelta(days=1)
"""So long a queue is missed, and counted, that no node consumes any more."""

MOST_FINGERPRINTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to be told."""

    subject: str = ""
    of: str = ""
    """What makes it another one than those of the same subject."""

    what: str
    remedy: str
    since: datetime
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """Where and when to look."""

    alias: str
    now: datetime
    letters: str
    """The queue of the dead letters."""

    sees_nodes: bool = True
    """Whether a node that was not seen for long is lost: not right after an outage."""


def find(glance: Glance, condition: str, options: Mapping[str, Any]) -> list[Finding]:
    """All that this condition finds."""
    return FINDERS[condition](glance, **options)


def is_known_to_be_over(glance: Glance, condition: str, subject: str) -> bool:
    """Whether what is not found any more is over, and not only out of our sight."""
    match condition:
        case "queue_older_than":
            return subject in _last_samples(glance, subject)
        case "queue_without_worker":
            return glance.sees_nodes and _needs_no_worker(glance, subject)
        case "beat_overdue":
            return glance.sees_nodes
    return True


def _needs_no_worker(glance: Glance, queue: str) -> bool:
    """Whether a node consumes it, or for all that the broker says nothing waits for one."""
    if _served(glance, 0.0).get(queue):
        return True
    last = _last_samples(glance, queue).get(queue)
    return last is not None and bool(last.consumers or not last.waiting)


def new_fingerprint(glance: Glance) -> list[Finding]:
    """Troubles whose first letter is young."""
    letters = DeadLetter.objects.using(glance.alias).order_by()
    since = glance.now - NEW_WITHIN
    groups = (
        letters.filter(archived_at__gte=since)
        .values("fingerprint")
        .annotate(
            first=Min("archived_at"),
            letters=Count("pk"),
            row=Min("pk"),
            task=Min("task_name"),
            reason=Min("reason"),
            error=Min("exception_type"),
        )
        .order_by("-first")[:MOST_FINGERPRINTS]
    )
    # One letter of each is asked about: all letters of a storm would be too many.
    found = {group["row"]: group for group in groups}
    before = letters.filter(archived_at__lt=since, fingerprint=OuterRef("fingerprint"))
    new = letters.filter(~Exists(before), pk__in=list(found))
    return [_trouble(found[row]) for row in new.values_list("pk", flat=True)]


def _trouble(group: Mapping[str, Any]) -> Finding:
    how = group["reason"].replace("_", " ")
    error = f" ({group['error']})" if group["error"] else ""
    letters, task = group["letters"], group["task"] or "a task without a name"
    so_many = "1 letter" if letters == 1 else f"{letters} letters"
    return Finding(
        subject=group["fingerprint"],
        what=f"New trouble: {task} was buried, {how}{error}; {so_many} so far.",
        remedy=f"manage.py unstuck dead show {group['row']}",
        since=group["first"],
        facts={"letters": letters, "task_name": group["task"], "letter": group["row"]},
    )


def letters_above(glance: Glance, count: float, minutes: float) -> list[Finding]:
    """More letters than that within so many minutes."""
    since = glance.now - timedelta(minutes=minutes)
    letters = DeadLetter.objects.using(glance.alias).filter(archived_at__gte=since)
    found = letters.count()
    if found <= count:
        return []
    return [
        Finding(
            subject=f"{count:g} in {minutes:g} minutes",
            what=f"{found} dead letters within {minutes:g} minutes, more than {count:g}.",
            remedy="manage.py unstuck dead list --grouped",
            since=glance.now,
            facts={"letters": found, "above": count, "minutes": minutes},
        )
    ]


def queue_older_than(
    glance: Glance, seconds: float, queue: str | None = None
) -> list[Finding]:
    """Queues whose first message has waited for longer."""
    return [
        Finding(
            subject=sample.queue,
            what=f"The oldest of {sample.waiting} messages in {sample.queue} has waited "
            f"for {sample.oldest_seconds:.0f} s, longer than {seconds:g} s.",
            remedy="Look at `manage.py unstuck status`; start more workers with "
            f"-Q {sample.queue}, or find what holds up those that there are.",
            since=glance.now,
            facts={
                "waiting": sample.waiting,
                "oldest_seconds": sample.oldest_seconds,
                "above_seconds": seconds,
            },
        )
        for sample in _last_samples(glance, queue).values()
        if (sample.oldest_seconds or 0.0) > seconds
    ]


def queue_without_worker(
    glance: Glance, seconds: float, queue: str | None = None
) -> list[Finding]:
    """Queues that no node has consumed for so long, though one did or messages wait."""
    if not glance.sees_nodes:
        return []
    served = _served(glance, seconds)
    last = _last_samples(glance, queue)
    return [
        Finding(
            subject=name,
            what=f"No worker consumes {name}; {_waiting(last.get(name))}",
            remedy=f"Start a worker with -Q {name}. If the queue is not used any more, "
            f"this is over {QUEUE_KNOWN_FOR.days} day after its last worker, once "
            f"nothing waits there.",
            since=glance.now,
            facts={"waiting": last[name].waiting if name in last else None},
        )
        for name in sorted({*served, *_always_waiting(glance, seconds)})
        if queue in (None, name)
        and not served.get(name)
        and not (name in last and last[name].consumers)
    ]


def node_lost(glance: Glance) -> list[Finding]:
    """Nodes that ended without a goodbye."""
    return [
        Finding(
            subject=incident.node,
            what=incident.what,
            remedy="Look at its host and its log. Start it again, or another one with "
            "its queues: `manage.py unstuck status` shows them.",
            since=incident.at,
            facts=incident.details,
        )
        for incident in _open(glance, "node_lost")
    ]


def recorder_behind(glance: Glance, seconds: float) -> list[Finding]:
    """Nodes whose facts wait for longer, and letters that nobody archives."""
    nodes = Node.objects.using(glance.alias).filter(
        facts_lag_seconds__gt=seconds, seen_at__gte=glance.now - Node.LOST_AFTER
    )
    behind = [
        Finding(
            subject=node.name,
            what=f"What {node.name} has to tell waits for {node.facts_lag_seconds:.0f} s "
            f"to be stored, longer than {seconds:g} s.",
            remedy="Its log says what the database has against it.",
            since=glance.now,
            facts={"lag_seconds": node.facts_lag_seconds, "above_seconds": seconds},
        )
        for node in nodes.exclude(state="gone")
    ]
    letters = [
        Finding(
            subject=glance.letters,
            what=incident.what,
            remedy="manage.py unstuck dead archive",
            since=incident.at,
            facts=incident.details,
        )
        for incident in _open(glance, "letters_waiting")
    ]
    return behind + letters


def beat_overdue(glance: Glance, seconds: float) -> list[Finding]:
    """Entries of beat that should have been sent longer ago."""
    if not glance.sees_nodes:
        return []
    entries = PeriodicEntry.objects.using(glance.alias).filter(
        enabled=True,
        next_run_at__lt=glance.now - timedelta(seconds=seconds),
    )
    return [
        _overdue(glance, entry, entry.next_run_at)
        for entry in entries
        if entry.next_run_at
    ]


def _overdue(glance: Glance, entry: PeriodicEntry, due: datetime) -> Finding:
    late = (glance.now - due).total_seconds()
    why = f": {entry.last_error}" if entry.last_error else "."
    remedy = (
        "Beat tries again every few seconds. Mend what it says."
        if entry.last_error
        else "Look whether a beat runs (`celery -A PROJECT beat`) and what its log says; "
        f"the last that led was {entry.told_by}. If there shall be none any more, delete "
        f"its rows of PeriodicEntry."
    )
    return Finding(
        subject=entry.name,
        of=entry.beat,
        what=f"Beat should have sent {entry.name} ({entry.task_name}) {late:.0f} s ago "
        f"and has not{why}",
        remedy=remedy,
        since=due,
        facts={"late_seconds": late, "task_name": entry.task_name, "beat": entry.beat},
    )


FINDERS: Mapping[str, Callable[..., list[Finding]]] = {
    "new_fingerprint": new_fingerprint,
    "letters_above": letters_above,
    "queue_older_than": queue_older_than,
    "queue_without_worker": queue_without_worker,
    "node_lost": node_lost,
    "recorder_behind": recorder_behind,
    "beat_overdue": beat_overdue,
}


def _open(glance: Glance, kind: str) -> QuerySet[Incident]:
    return Incident.objects.using(glance.alias).filter(kind=kind, resolved_at=None)


def _samples(glance: Glance) -> QuerySet[QueueSample]:
    """Of all queues but that of the dead letters, which no worker consumes."""
    return (
        QueueSample.objects.using(glance.alias).exclude(queue=glance.letters).order_by()
    )


def _last_samples(glance: Glance, queue: str | None) -> dict[str, QueueSample]:
    recent = _samples(glance).filter(at__gt=glance.now - SAMPLES_WITHIN)
    if queue is not None:
        recent = recent.filter(queue=queue)
    return {sample.queue: sample for sample in recent.order_by("at")}


def _always_waiting(glance: Glance, seconds: float) -> list[str]:
    """Queues that had messages at every glance for so long."""
    start = glance.now - timedelta(seconds=seconds)
    seen = _samples(glance).filter(at__gt=start - SAMPLES_WITHIN)
    found = seen.values("queue").annotate(
        first=Min("at"), last=Max("at"), least=Min("waiting")
    )
    return [
        row["queue"]
        for row in found
        if row["least"]
        and row["first"] <= start
        and row["last"] > glance.now - SAMPLES_WITHIN
    ]


def _served(glance: Glance, seconds: float) -> dict[str, bool]:
    """Each queue that a node consumes or did, and whether one still does."""
    since = glance.now - max(QUEUE_KNOWN_FOR, timedelta(seconds=2 * seconds))
    patience = timedelta(seconds=seconds)
    served: dict[str, bool] = {}
    for node in Node.objects.using(glance.alias).filter(seen_at__gt=since):
        unseen = glance.now - node.seen_at
        is_there = node.state != "gone" and unseen <= Node.LOST_AFTER
        for name in node.queues:
            served[name] = served.get(name, False) or is_there or unseen <= patience
    return served


def _waiting(sample: QueueSample | None) -> str:
    if sample is None or sample.waiting is None:
        return "nobody knows what waits there."
    return f"{sample.waiting} messages wait there."
