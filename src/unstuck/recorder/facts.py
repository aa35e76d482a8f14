"""Facts as rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest

from unstuck import models
from unstuck.core.facts import Fact, Incident, Minute, Run
from unstuck.letters.letter import fingerprint_of
from unstuck.letters.redact import clean, storable
from unstuck.recorder.database import insert_new, is_of_the_row, writing
from unstuck.recorder.sound import identity, instant, number, short

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

RUNTIMES = (
    "under_10ms",
    "under_100ms",
    "under_1s",
    "under_10s",
    "under_1m",
    "under_5m",
    "longer",
)
"""Where runs are counted by ``RUNTIME_BOUNDS``."""

Key = tuple[datetime, str, str, str]


class Batch(NamedTuple):
    """What facts are stored with, so that they are stored once."""

    node: str
    id: UUID


logger = logging.getLogger(__name__)


def store(facts: Sequence[Fact], batch: Batch | None = None) -> int:
    """Write facts to the database in one transaction; says how many it left out.

    Each is written once however often it is stored: a run and an incident by its id, and
    a minute, which is added to what is there, by the ``batch`` that it comes with. A fact
    that no database takes is left out and logged. Raises what a database raises that
    takes no fact; then none is written.
    """
    try:
        with writing() as alias:
            if not _is_known(alias, batch):
                _write(alias, facts)
            return 0
    except Exception as error:
        if not is_of_the_row(error):
            raise
    # One odd fact must not keep the others out.
    with writing() as alias:
        if _is_known(alias, batch):
            return 0
        return sum(not _is_written(alias, fact) for fact in facts)


def _is_known(alias: str, batch: Batch | None) -> bool:
    """Whether its commit worked and was not heard of; from now on, if not."""
    if batch is None:
        return False
    node = models.Node.objects.using(alias).filter(name=batch.node)
    if node.filter(last_batch=batch.id).exists():
        return True
    node.update(last_batch=batch.id)
    return False


def _is_written(alias: str, fact: Fact) -> bool:
    try:
        with transaction.atomic(using=alias):
            _write(alias, [fact])
    except Exception as error:
        if not is_of_the_row(error):
            raise
        logger.exception("A fact is left out: %.500r", fact)
        return False
    return True


def _write(alias: str, facts: Sequence[Fact]) -> None:
    runs = [_run_row(fact) for fact in facts if isinstance(fact, Run)]
    incidents = [_incident_row(fact) for fact in facts if isinstance(fact, Incident)]
    insert_new(alias, "run_id", runs)
    insert_new(alias, "incident_id", incidents)
    _add_minutes(alias, [fact for fact in facts if isinstance(fact, Minute)])


def _add_minutes(alias: str, minutes: Sequence[Minute]) -> None:
    """Add to the rows of these minutes, made where they are missing."""
    parts: dict[Key, list[Minute]] = {}
    for minute in minutes:
        parts.setdefault(_key(minute), []).append(minute)
    # Always in the same order, so that two recorders cannot wait for each other.
    keys = sorted(parts)
    stored = models.TaskMinute.objects.using(alias)
    empty = [models.TaskMinute(**_named(key)) for key in keys]
    stored.bulk_create(empty, ignore_conflicts=True)
    for key in keys:
        stored.filter(**_named(key)).update(**_added(parts[key]))


def _key(minute: Minute) -> Key:
    names = short(minute.node), short(minute.task_name), short(minute.queue)
    return (instant(minute.minute), *names)


def _named(key: Key) -> dict[str, Any]:
    return dict(zip(("minute", "node", "task_name", "queue"), key, strict=True))


def _added(parts: Sequence[Minute]) -> dict[str, Any]:
    longest = max(number(part.runtime_max) or 0.0 for part in parts)
    sums: dict[str, float] = {}
    for part in parts:
        for column, value in _columns(part):
            sums[column] = sums.get(column, 0) + value
    added: dict[str, Any] = {column: F(column) + sums[column] for column in sums}
    return {**added, "runtime_max": Greatest(F("runtime_max"), Value(longest))}


def _columns(minute: Minute) -> Iterator[tuple[str, float]]:
    yield "runtime_seconds", number(minute.runtime_seconds) or 0.0
    yield "rss_growth_bytes", minute.rss_growth_bytes
    yield "swallowed", minute.swallowed
    yield from zip(RUNTIMES, minute.runtimes, strict=False)
    for ending, count in minute.counts.items():
        yield COLUMNS.get(ending, "other"), count


def _run_row(run: Run) -> models.TaskRun:
    return models.TaskRun(
        run_id=identity(run.id),
        task_id=short(run.task_id),
        task_name=short(run.task_name),
        queue=short(run.queue),
        attempt=run.attempt,
        deliveries=run.deliveries,
        ending=run.ending,
        verdict=run.verdict,
        reason=run.reason,
        cause=clean(run.cause),
        exception_type=short(run.exception_type),
        exception_message=clean(run.exception_message),
        traceback=clean(run.traceback),
        stack=clean(run.stack),
        soft_stack=clean(run.soft_stack),
        swallowed_soft_limit=run.swallowed_soft_limit,
        waiting_for=clean(run.waiting_for),
        fingerprint=short(_fingerprint(run)),
        node=short(run.node),
        pid=run.pid,
        started_at=instant(run.started_at) if run.started_at else None,
        ended_at=instant(run.ended_at),
        runtime_seconds=number(run.runtime_seconds),
        rss_bytes=run.rss_bytes,
        rss_growth_bytes=run.rss_growth_bytes,
        cpu_seconds=number(run.cpu_seconds),
        child_age_seconds=number(run.child_age_seconds),
    )


def _fingerprint(run: Run) -> str:
    """The one of its dead letter, if there is one."""
    place = run.stack or run.traceback or run.soft_stack
    ending = run.reason or run.ending
    return fingerprint_of(ending, run.exception_type, place, run.task_name)


def _incident_row(incident: Incident) -> models.Incident:
    return models.Incident(
        incident_id=identity(incident.id),
        kind=short(incident.kind),
        at=instant(incident.at),
        node=short(incident.node),
        process=short(incident.process),
        pid=incident.pid,
        what=clean(incident.what),
        stack=clean(incident.stack),
        waiting_for=clean(incident.waiting_for),
        details=storable(incident.details),
    )
