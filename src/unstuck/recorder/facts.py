"""Facts as rows."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest

from unstuck import conf, models
from unstuck.core.facts import Fact, Incident, Minute, Run
from unstuck.letters.letter import fingerprint_of
from unstuck.letters.redact import clean, storable
from unstuck.recorder.archive import AWAY, short

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

Key = tuple[datetime, str, str, str]

logger = logging.getLogger(__name__)


def store(facts: Sequence[Fact]) -> None:
    """Write facts to the database in one transaction.

    A run or an incident is written once however often it is stored; a minute is added
    to what is there. Raises one of ``AWAY``; then none is written. A fact that no
    database takes is left out and logged.
    """
    try:
        with transaction.atomic(using=_database()):
            _write(facts)
    except AWAY:
        raise
    except Exception:
        # One odd fact must not keep the others out.
        with transaction.atomic(using=_database()):
            for fact in facts:
                _write_or_leave_out(fact)


def _write_or_leave_out(fact: Fact) -> None:
    try:
        with transaction.atomic(using=_database()):
            _write([fact])
    except AWAY:
        raise
    except Exception:
        logger.exception("A fact is left out: %.500r", fact)


def _write(facts: Sequence[Fact]) -> None:
    runs = [_run_row(fact) for fact in facts if isinstance(fact, Run)]
    incidents = [_incident_row(fact) for fact in facts if isinstance(fact, Incident)]
    models.TaskRun.objects.using(_database()).bulk_create(runs, ignore_conflicts=True)
    models.Incident.objects.using(_database()).bulk_create(
        incidents, ignore_conflicts=True
    )
    _add_minutes([fact for fact in facts if isinstance(fact, Minute)])


def _add_minutes(minutes: Sequence[Minute]) -> None:
    """Add to the rows of these minutes, made where they are missing."""
    parts: dict[Key, list[Minute]] = {}
    for minute in minutes:
        parts.setdefault(_key(minute), []).append(minute)
    # Always in the same order, so that two recorders cannot wait for each other.
    keys = sorted(parts)
    stored = models.TaskMinute.objects.using(_database())
    empty = [models.TaskMinute(**_named(key)) for key in keys]
    stored.bulk_create(empty, ignore_conflicts=True)
    for key in keys:
        stored.filter(**_named(key)).update(**_added(parts[key]))


def _key(minute: Minute) -> Key:
    names = short(minute.node), short(minute.task_name), short(minute.queue)
    return (minute.minute, *names)


def _named(key: Key) -> dict[str, Any]:
    return dict(zip(("minute", "node", "task_name", "queue"), key, strict=True))


def _added(parts: Sequence[Minute]) -> dict[str, Any]:
    longest = max(part.runtime_max for part in parts)
    sums: dict[str, float] = {}
    for part in parts:
        for column, value in _columns(part):
            sums[column] = sums.get(column, 0) + value
    added: dict[str, Any] = {column: F(column) + sums[column] for column in sums}
    return {**added, "runtime_max": Greatest(F("runtime_max"), Value(longest))}


def _columns(minute: Minute) -> Iterator[tuple[str, float]]:
    yield "runtime_seconds", minute.runtime_seconds
    yield "rss_growth_bytes", minute.rss_growth_bytes
    yield "swallowed", minute.swallowed
    for ending, count in minute.counts.items():
        yield COLUMNS.get(ending, "other"), count


def _run_row(run: Run) -> models.TaskRun:
    return models.TaskRun(
        run_id=uuid.UUID(run.id),
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
        started_at=run.started_at,
        ended_at=run.ended_at,
        runtime_seconds=run.runtime_seconds,
        rss_bytes=run.rss_bytes,
        rss_growth_bytes=run.rss_growth_bytes,
        cpu_seconds=run.cpu_seconds,
        child_age_seconds=run.child_age_seconds,
    )


def _fingerprint(run: Run) -> str:
    """The one of its dead letter, if there is one."""
    place = run.stack or run.traceback or run.soft_stack
    ending = run.reason or run.ending
    return fingerprint_of(ending, run.exception_type, place, run.task_name)


def _incident_row(incident: Incident) -> models.Incident:
    return models.Incident(
        incident_id=uuid.UUID(incident.id),
        kind=short(incident.kind),
        at=incident.at,
        node=short(incident.node),
        process=short(incident.process),
        pid=incident.pid,
        what=clean(incident.what),
        stack=clean(incident.stack),
        waiting_for=clean(incident.waiting_for),
        details=storable(incident.details),
    )


def _database() -> str:
    return conf.current().database
