"""Rows go when they are older than ``RETENTION_DAYS`` says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import Model

from unstuck import conf
from unstuck.fields import Fields
from unstuck.models import (
    AuditEntry,
    DeadLetter,
    Incident,
    Node,
    OutboxMessage,
    QueueSample,
    TaskMinute,
    TaskRun,
)
from unstuck.recorder.database import writing
from unstuck.recorder.fleet import last_release

logger = logging.getLogger(__name__)

BATCH = 500
"""Rows of one DELETE: it locks little, and SQLite takes their ids as parameters."""

KINDS: Mapping[str, tuple[type[Model], str]] = {
    "letters": (DeadLetter, "archived_at"),
    "runs": (TaskRun, "ended_at"),
    "minutes": (TaskMinute, "minute"),
    "incidents": (Incident, "at"),
    "nodes": (Node, "seen_at"),
    "samples": (QueueSample, "at"),
    "audit": (AuditEntry, "at"),
    "outbox": (OutboxMessage, "written_at"),
}
"""What is kept for how long, and the column that says how old it is."""


def prune_batch(now: datetime) -> int:
    """Delete some of the rows that are too old; says how many, 0 when none is left."""
    with writing() as alias:
        for kind, days in conf.current().retention_days.items():
            deleted = _prune(alias, *KINDS[kind], days, now)
            if deleted and kind == "outbox":
                logger.error(
                    "Messages of the outbox were never sent, and go: %(fields)s",
                    Fields(messages=deleted),
                )
            if deleted:
                return deleted
    return 0


def _prune(
    alias: str, model: type[Model], column: str, days: float, now: datetime
) -> int:
    try:
        oldest = now - timedelta(days=days)
    except OverflowError:
        # Longer than there have been clocks: for ever.
        return 0
    rows = model._default_manager.using(alias).order_by()
    old = rows.filter(**{f"{column}__lt": oldest}).order_by(column)
    if model is Incident:
        # By it the next one is known to be another.
        old = old.exclude(pk__in=last_release(alias).values("pk"))
    batch = list(old.values_list("pk", flat=True)[:BATCH])
    rows.filter(pk__in=batch).delete()
    return len(batch)
