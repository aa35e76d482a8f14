"""Minutes as rows: added to what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from unstuck.core.facts import Minute
from unstuck.core.histogram import Histogram
from unstuck.models import TaskMinute
from unstuck.recorder.database import upsert
from unstuck.recorder.sound import instant, number, short

COLUMNS: Mapping[str, str] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "retried": "retried",
    "soft_limit": "soft_limit",
    "hard_limit": "hard_limit",
    "child_lost": "lost",
    "node_lost": "lost",
}
"""Where an ending is counted; all others are ``other``."""

KEY = ("minute", "span_minutes", "node", "task_name", "queue")
SUMS = (
    *dict.fromkeys(COLUMNS.values()),
    "other",
    "swallowed",
    "runtime_seconds",
    "wait_seconds",
    "waits_unknown",
    "rss_growth_bytes",
)
MAXIMA = ("runtime_max", "wait_max")
HISTOGRAMS = ("runtimes", "waits")
VALUES = (*SUMS, *MAXIMA, *HISTOGRAMS)

Key = tuple[datetime, int, str, str, str]


def add(alias: str, minutes: Sequence[Minute]) -> None:
    """Add to the rows of these minutes, made where they are missing."""
    add_rows(alias, [_row(minute) for minute in minutes])


def add_rows(alias: str, rows: Iterable[TaskMinute]) -> None:
    """Add rows that are not stored to those of their keys, in a transaction."""
    parts: dict[Key, list[TaskMinute]] = {}
    for row in rows:
        parts.setdefault(_key(row), []).append(row)
    if not parts:
        return
    # Always in the same order, so that two recorders cannot wait for each other.
    keys = sorted(parts)
    there = _locked(alias, keys)
    if missing := [key for key in keys if key not in there]:
        empty = [TaskMinute(**dict(zip(KEY, key, strict=True))) for key in missing]
        stored = TaskMinute.objects.using(alias)
        stored.bulk_create(empty, ignore_conflicts=True)
        # Somebody else may have been faster.
        there |= _locked(alias, missing)
    for key, row in there.items():
        parts[key].append(row)
    upsert(alias, KEY, [_sum(parts[key]) for key in keys], VALUES)


def _locked(alias: str, keys: Sequence[Key]) -> dict[Key, TaskMinute]:
    """The rows that are there of these keys; nobody else changes them."""
    columns = (
        (f"{name}__in", {key[place] for key in keys}) for place, name in enumerate(KEY)
    )
    found = TaskMinute.objects.using(alias).filter(**dict(columns)).order_by(*KEY)
    wanted = set(keys)
    return {
        key: row for row in found.select_for_update() if (key := _key(row)) in wanted
    }


def _key(row: TaskMinute) -> Key:
    return row.minute, row.span_minutes, row.node, row.task_name, row.queue


def _sum(parts: Sequence[TaskMinute]) -> TaskMinute:
    """One row that is what all of them are together, by the key of the first."""
    whole = TaskMinute(**{name: getattr(parts[0], name) for name in KEY})
    for name in SUMS:
        setattr(whole, name, sum(getattr(part, name) for part in parts))
    for name in MAXIMA:
        setattr(whole, name, max(getattr(part, name) for part in parts))
    for name in HISTOGRAMS:
        texts = [getattr(part, name) for part in parts]
        setattr(whole, name, Histogram.of(texts).to_wire())
    return whole


def _row(minute: Minute) -> TaskMinute:
    counts: dict[str, int] = {}
    for ending, count in minute.counts.items():
        column = COLUMNS.get(ending, "other")
        counts[column] = counts.get(column, 0) + count
    values: dict[str, Any] = {
        name: number(getattr(minute, name)) or 0.0
        for name in ("runtime_seconds", "runtime_max", "wait_seconds", "wait_max")
    }
    return TaskMinute(
        minute=instant(minute.minute),
        node=short(minute.node),
        task_name=short(minute.task_name),
        queue=short(minute.queue),
        swallowed=minute.swallowed,
        rss_growth_bytes=minute.rss_growth_bytes,
        waits_unknown=minute.waits_unknown,
        runtimes=minute.runtimes,
        waits=minute.waits,
        **values,
        **counts,
    )
