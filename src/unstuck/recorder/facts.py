"""Facts as rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from unstuck import models
from unstuck.core.facts import Fact, Incident, Minute, Run
from unstuck.fields import Fields
from unstuck.letters.letter import fingerprint_of
from unstuck.letters.redact import clean, storable
from unstuck.recorder import minutes
from unstuck.recorder.database import insert_new, is_of_the_row, writing
from unstuck.recorder.sound import identity, instant, number, short

PLAIN = "succeeded"


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
        logger.exception(
            "A fact is left out: %(fields)s", Fields(fact=f"{fact!r:.500}")
        )
        return False
    return True


def _write(alias: str, facts: Sequence[Fact]) -> None:
    runs = [_run_row(fact) for fact in facts if isinstance(fact, Run)]
    incidents = [_incident_row(fact) for fact in facts if isinstance(fact, Incident)]
    insert_new(alias, "run_id", runs)
    insert_new(alias, "incident_id", incidents)
    minutes.add(alias, [fact for fact in facts if isinstance(fact, Minute)])


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
        waited_seconds=number(run.waited_seconds),
        runtime_seconds=number(run.runtime_seconds),
        rss_bytes=run.rss_bytes,
        rss_growth_bytes=run.rss_growth_bytes,
        cpu_seconds=number(run.cpu_seconds),
        child_age_seconds=number(run.child_age_seconds),
    )


def _fingerprint(run: Run) -> str:
    """The one of its dead letter, if there is one; of a plain success there is none."""
    if run.ending == PLAIN and not run.swallowed_soft_limit and not run.soft_stack:
        return ""
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
