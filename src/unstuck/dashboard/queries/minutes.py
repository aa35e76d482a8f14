"""Runs added up: by task, and over time. Bounded, however many rows there are.

Counts are added up by the database. Histograms it only joins to one text; a page reads some
``MOST_ROWS`` of them, and of more rows a sample that is spread evenly over time and tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import (
    Aggregate,
    Count,
    F,
    FloatField,
    Q,
    QuerySet,
    Sum,
    TextField,
)
from django.db.models.functions import Cast, NullIf
from django.db.models.lookups import LessThan

from unstuck import conf
from unstuck.core.histogram import Histogram
from unstuck.dashboard.window import Window
from unstuck.models import TaskMinute

MOST_ROWS = 5_000
MOST_TASKS = 100

PRIME, STRIDE = 65_521, 31_013
"""They scatter row numbers, as tasks are written in the same order minute by minute."""

COUNTS = ("succeeded", "failed", "retried", "soft_limit", "hard_limit", "lost", "other")
TROUBLES = ("failed", "soft_limit", "hard_limit", "lost")


@dataclass(slots=True)
class Total:
    """Some runs together."""

    name: str = ""
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    soft_limit: int = 0
    hard_limit: int = 0
    lost: int = 0
    other: int = 0
    growth: int = 0
    rows: int = 0
    runtimes: Histogram = field(default_factory=Histogram)
    waits: Histogram = field(default_factory=Histogram)

    def add(self, sums: dict[str, Any]) -> None:
        """Add what the database has added up."""
        for name in (*COUNTS, "growth", "rows"):
            setattr(self, name, getattr(self, name) + sums[f"sum_{name}"])

    @property
    def runs(self) -> int:
        """All of them."""
        return sum(getattr(self, name) for name in COUNTS)

    @property
    def limits(self) -> int:
        """Those that hit a limit."""
        return self.soft_limit + self.hard_limit

    @property
    def troubled(self) -> int:
        """Those that failed, hit a limit or were lost; a retry is none yet."""
        return sum(getattr(self, name) for name in TROUBLES)

    @property
    def rate(self) -> float:
        """The share of those in trouble, in per cent."""
        return 100 * self.troubled / self.runs if self.runs else 0.0

    def run(self, percent: int) -> float | None:
        """So many percent ran no longer, in seconds."""
        return self.runtimes.percentile(percent)

    def wait(self, percent: int) -> float | None:
        """So many percent waited no longer, in seconds."""
        return self.waits.percentile(percent)


@dataclass(frozen=True, slots=True)
class History:
    """Runs over time."""

    buckets: list[Total]
    whole: Total
    every: int = 1
    """One of so many rows was read for the percentiles."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Each task by itself."""

    rows: list[Total]
    more: bool = False
    every: int = 1


SQL_SORTS = {
    "name": F("task_name").asc(),
    "runs": F("runs").desc(),
    "failed": F("sum_failed").desc(),
    "rate": F("rate").desc(nulls_last=True),
    "retried": F("sum_retried").desc(),
    "limits": F("limits").desc(),
    "lost": F("sum_lost").desc(),
}
PERCENTILES = (50, 95, 99)
SORTS = (
    *SQL_SORTS,
    *(f"{what}{percent}" for what in ("run", "wait") for percent in PERCENTILES),
)


def minutes(window: Window, task: str = "") -> QuerySet[TaskMinute]:
    """The rows of a window, of a task or of all."""
    found = TaskMinute.objects.using(conf.current().database).order_by()
    found = found.filter(minute__gte=window.since)
    return found.filter(task_name=task) if task else found


def tasks(window: Window, sort: str, text: str = "") -> Tasks:
    """The first ``MOST_TASKS`` by ``sort``; by a percentile, of those with most runs."""
    found = minutes(window)
    if text:
        found = found.filter(task_name__icontains=text)
    order = SQL_SORTS.get(sort, SQL_SORTS["runs"])
    sums = _ranked(_summed(found, "task_name")).order_by(order, "task_name")
    rows = []
    for each in sums[: MOST_TASKS + 1]:
        total = Total(each["task_name"])
        total.add(each)
        rows.append(total)
    more, rows = len(rows) > MOST_TASKS, rows[:MOST_TASKS]
    every = _merge_by_task(found, rows)
    if sort not in SQL_SORTS:
        rows.sort(key=lambda total: _percentile(total, sort), reverse=True)
    return Tasks(rows, more, every)


def history(window: Window, task: str = "") -> History:
    """The buckets of the window, and all of it together."""
    found = minutes(window, task)
    buckets, whole = [Total() for _ in window.times], Total(task)
    for sums in _summed(found, "minute"):
        buckets[window.place(sums["minute"])].add(sums)
        whole.add(sums)
    if not whole.rows:
        return History(buckets, whole)
    every = _every(whole.rows)
    for minute, runtimes, waits in _joined(_thinned(found, every), "minute"):
        bucket = buckets[window.place(minute)]
        bucket.runtimes.merge(runtimes)
        bucket.waits.merge(waits)
    _merge_all(whole, buckets)
    return History(buckets, whole, every)


def _summed(found: QuerySet[TaskMinute], by: str) -> Any:
    sums = {f"sum_{name}": Sum(name) for name in COUNTS}
    return found.values(by).annotate(
        **sums, sum_growth=Sum("rss_growth_bytes"), sum_rows=Count("pk")
    )


def _ranked(totals: Any) -> Any:
    """With what they are sorted by, and what it is made of."""
    totals = totals.annotate(
        runs=_plus(COUNTS), limits=_plus(("soft_limit", "hard_limit"))
    )
    return totals.annotate(
        rate=Cast(_plus(TROUBLES), FloatField()) / NullIf(F("runs"), 0)
    )


def _plus(names: Iterable[str]) -> Any:
    first, *rest = (F(f"sum_{name}") for name in names)
    return sum(rest, start=first)


def _merge_by_task(found: QuerySet[TaskMinute], rows: list[Total]) -> int:
    """Read the histograms of these tasks: of those with few rows all of them."""
    if not rows:
        return 1
    share = MOST_ROWS // (2 * len(rows))
    few = [total.name for total in rows if total.rows <= share]
    many = [total for total in rows if total.rows > share]
    every = _every(sum(total.rows for total in many))
    scattered = Q(task_name__in=[total.name for total in many])
    if every > 1:
        scattered &= _lot(every)
    read = found.filter(Q(task_name__in=few) | scattered)
    totals = {total.name: total for total in rows}
    for name, runtimes, waits in _joined(read, "task_name"):
        totals[name].runtimes.merge(runtimes)
        totals[name].waits.merge(waits)
    return every


def _joined(found: QuerySet[TaskMinute], by: str) -> Any:
    """The histograms of these rows, those that belong together as one text."""
    texts = found.values(by).annotate(ran=_Joined("runtimes"), waited=_Joined("waits"))
    return texts.values_list(by, "ran", "waited")


class _Joined(Aggregate):
    """Texts with spaces between. (Django has it from 6.0 on, for PostgreSQL before.)"""

    function = "STRING_AGG"
    template = "%(function)s(%(expressions)s, ' ')"
    output_field = TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, function="GROUP_CONCAT", **extra)


def _merge_all(whole: Total, buckets: Iterable[Total]) -> None:
    for bucket in buckets:
        for into, part in (
            (whole.runtimes.counts, bucket.runtimes.counts),
            (whole.waits.counts, bucket.waits.counts),
        ):
            for number, count in part.items():
                into[number] = into.get(number, 0) + count


def _every(rows: int) -> int:
    return max(1, math.ceil(rows / MOST_ROWS))


def _thinned(found: QuerySet[TaskMinute], every: int) -> QuerySet[TaskMinute]:
    return found.filter(_lot(every)) if every > 1 else found


def _lot(every: int) -> Q:
    """One of so many rows, the same ones at each reading."""
    scattered: Any = (F("pk") % PRIME) * STRIDE % PRIME
    return Q(LessThan(scattered, PRIME // every))


def _percentile(total: Total, sort: str) -> float:
    what, percent = sort[:-2], int(sort[-2:])
    value = total.run(percent) if what == "run" else total.wait(percent)
    return -1.0 if value is None else value
