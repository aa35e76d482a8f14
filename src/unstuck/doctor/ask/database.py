"""Asking the database: for its tables, and for what they tell."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.db import Error, connections
from django.db.migrations.loader import MigrationLoader
from django.db.models import Max, Min

from unstuck.core.clock import system_clock
from unstuck.doctor.ask.skews import skew
from unstuck.doctor.facts import Archive, Database, Letters, Longest, Part, Row
from unstuck.models import DeadLetter, Incident, Node, TaskMinute

APP = "unstuck"

CLOCKS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mysql": "SELECT unix_timestamp(now(6))",
}
"""Where the server has a clock of its own, and how it tells it."""

HISTORY = timedelta(days=7)
MOST_TASKS = 200
SHORT_SECONDS = 1.0
"""No timeout is as short; the longest run of most tasks is not looked for."""


def ask(alias: str) -> tuple[dict[str, Any], dict[Part, str]]:
    """The tables, and what they tell if they do. Raises what the database raises."""
    connection = connections[alias]
    try:
        facts: dict[str, Any] = {"database": _tables(connection)}
        try:
            facts["archive"] = _archive(alias, system_clock())
        except Error as error:
            return facts, {Part.ARCHIVE: " ".join(str(error).split())}
        return facts, {}
    finally:
        # Of this thread, which nobody else will use.
        connection.close()


def _tables(connection: Any) -> Database:
    loader = MigrationLoader(connection, ignore_no_migrations=True)
    known = {name for app, name in loader.disk_migrations if app == APP}
    applied = {name for app, name in loader.applied_migrations if app == APP}
    there = set(connection.introspection.table_names())
    wanted = {model._meta.db_table for model in apps.get_app_config(APP).get_models()}
    return Database(
        vendor=connection.vendor,
        unapplied=tuple(sorted(known - applied)),
        ahead=tuple(sorted(applied - known)),
        missing=tuple(sorted(wanted - there)),
        skew=_skew(connection),
    )


def _skew(connection: Any) -> float | None:
    """``None`` where it has no clock but that of its host's process, as SQLite."""
    question = CLOCKS.get(connection.vendor)
    if question is None:
        return None
    with connection.cursor() as cursor:
        asked = time.time()
        cursor.execute(question)
        (said,) = cursor.fetchone()
        return skew(float(said), asked, time.time())


def _archive(alias: str, now: datetime) -> Archive:
    waiting = Incident.objects.using(alias).filter(
        kind="letters_waiting", resolved_at=None
    )
    nodes = Node.objects.using(alias).exclude(state="gone")
    return Archive(
        nodes=tuple(_row(node) for node in nodes.filter(seen_at__gt=now - HISTORY)),
        longest=_longest(alias, now),
        letters=_letters(alias, now),
        letters_wait_since=waiting.aggregate(first=Min("at"))["first"],
    )


def _row(node: Node) -> Row:
    return Row(
        name=node.name,
        host=node.host,
        started_at=node.started_at,
        seen_at=node.seen_at,
        is_lost=node.is_lost,
        queues=tuple(node.queues),
        lag_seconds=node.facts_lag_seconds,
        missing_facts=node.facts_dropped + node.facts_left_out,
    )


def _longest(alias: str, now: datetime) -> tuple[Longest, ...]:
    minutes = TaskMinute.objects.using(alias).filter(minute__gt=now - HISTORY)
    tasks = (
        minutes.order_by()
        .values("task_name", "queue")
        .annotate(longest=Max("runtime_max"))
        .filter(longest__gt=SHORT_SECONDS)
        .order_by("-longest")[:MOST_TASKS]
    )
    return tuple(
        Longest(
            task=each["task_name"],
            queue=each["queue"],
            seconds=each["longest"],
            at=minutes.filter(
                task_name=each["task_name"],
                queue=each["queue"],
                runtime_max__gte=each["longest"],
            ).aggregate(at=Max("minute"))["at"],
        )
        for each in tasks
    )


def _letters(alias: str, now: datetime) -> Letters:
    hour, day = now - timedelta(hours=1), now - timedelta(hours=25)
    letters = DeadLetter.objects.using(alias).order_by()
    young = letters.filter(archived_at__gt=hour)
    return Letters(
        last_hour=young.count(),
        day_before=letters.filter(archived_at__gt=day, archived_at__lte=hour).count(),
        first=young.aggregate(first=Min("archived_at"))["first"],
    )
