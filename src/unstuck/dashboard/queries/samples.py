"""Queues and releases over time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Func, IntegerField, Max, QuerySet

from unstuck import conf
from unstuck.dashboard.window import Window
from unstuck.models import Incident, QueueSample

MOST_QUEUES = 5
MOST_MARKS = 20
MINUTE, QUARTER = 60, 900


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue over time: in each bucket the most of its samples; ``None`` is a gap."""

    name: str
    waiting: list[float | None]
    oldest: list[float | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """When something was deployed."""

    at: datetime
    label: str


def queues(window: Window) -> list[Queue]:
    """Those in which most has waited, the fullest first."""
    found = QueueSample.objects.using(conf.current().database).order_by()
    found = ranked = found.filter(at__gte=window.since)
    if window.step > MINUTE:
        # One a minute, and to choose by one a quarter of an hour: there are very many.
        found = found.filter(grain_seconds__in=(MINUTE, QUARTER))
        ranked = found.filter(grain_seconds=QUARTER)
    names = _fullest(ranked)
    gaps = len(window.times)
    shown = {name: Queue(name, [None] * gaps, [None] * gaps) for name in names}
    buckets = found.filter(queue__in=names).annotate(bucket=_Bucket("at", window.step))
    most = buckets.values("queue", "bucket").annotate(
        most=Max("waiting"), longest=Max("oldest_seconds")
    )
    for one in most if names else ():
        place = min(int(one["bucket"]) - window.start // window.step, gaps - 1)
        _raise(shown[one["queue"]].waiting, place, one["most"])
        _raise(shown[one["queue"]].oldest, place, one["longest"])
    return list(shown.values())


def _fullest(found: QuerySet[QueueSample]) -> list[str]:
    most = (
        found.filter(waiting__isnull=False)
        .values("queue")
        .annotate(most=Max("waiting"), longest=Max("oldest_seconds"))
        .order_by("-most", "-longest", "queue")
    )
    return [each["queue"] for each in most[:MOST_QUEUES]]


def releases(window: Window) -> list[Mark]:
    """The newest of the window, the oldest first."""
    found = Incident.objects.using(conf.current().database)
    found = found.filter(kind="release", at__gte=window.since).only("at", "details")
    marks = [
        Mark(incident.at, str(incident.details.get("release", "")))
        for incident in found.order_by("-at")[:MOST_MARKS]
    ]
    return marks[::-1]


class _Bucket(Func):
    """The same for all instants of so many seconds."""

    output_field = IntegerField()
    template = "FLOOR(DATE_PART('epoch', %(expressions)s) / %(step)d)"

    def __init__(self, at: str, step: int) -> None:
        super().__init__(at, step=step)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        seconds = "CAST(STRFTIME('%%%%s', %(expressions)s) AS INTEGER)"
        template = f"({seconds} / %(step)d)"
        return self.as_sql(compiler, connection, template=template, **extra)


def _raise(values: list[float | None], place: int, value: float | None) -> None:
    before = values[place]
    if value is not None and (before is None or value > before):
        values[place] = value
