"""What the doctor finds in real tables that are, and hold, what it says."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from unstuck import Celery
from unstuck.core.clock import system_clock
from unstuck.doctor.ask import database
from unstuck.doctor.ask.here import here_of
from unstuck.doctor.facts import Part, Seen
from unstuck.doctor.rule import Finding, run
from unstuck.doctor.table import TABLE
from unstuck.models import DeadLetter, Incident, Node, TaskMinute

pytestmark = pytest.mark.django_db

SOLO = MappingProxyType(
    {
        "broker_url": "redis://127.0.0.1:1/0",
        "broker_transport_options": {"visibility_timeout": 100},
        "worker_pool": "solo",
        "task_time_limit": 120,
    }
)


def work() -> None:
    """A task."""


def found() -> dict[str, Finding]:
    """What is found of the database, in a project whose broker gives messages away."""
    app = Celery("sample", set_as_current=False)
    app.conf.update(SOLO)
    app.task(name="shop.work", shared=False)(work)
    try:
        facts, unasked = database.ask("default")
        seen = Seen(now=system_clock(), here=here_of(app), unasked=unasked, **facts)
    finally:
        app.close()
    return {each.id[-4:]: each for each in run(TABLE.values(), seen)}


def letters(count: int, **known: Any) -> None:
    """So many of them."""
    rows = [
        DeadLetter(letter_id=uuid4(), buried_at=system_clock(), message=b"")
        for _ in range(count)
    ]
    DeadLetter.objects.bulk_create(rows)
    if known:
        DeadLetter.objects.filter(pk__in=[row.pk for row in rows]).update(**known)


def minute(seconds: float, queue: str = "celery") -> None:
    """A run that took so long."""
    TaskMinute.objects.create(
        minute=system_clock(),
        task_name="shop.work",
        queue=queue,
        runtime_max=seconds,
    )


def node(**known: Any) -> None:
    """One that is there."""
    now = system_clock()
    essence = {"name": "celery@a", "state": "ready", "started_at": now, "seen_at": now}
    Node.objects.create(**{**essence, **known})


def test_tables_where_all_is_well() -> None:
    """Short runs, a few letters, a recorder that keeps up."""
    yesterday = system_clock() - timedelta(hours=20)
    letters(48, archived_at=yesterday)
    letters(3)
    minute(0.2)
    minute(12.0)
    node(facts_lag_seconds=2.0)

    assert set(found()) == {"D006"}  # Nobody asks that node here.


def test_letters_that_grow() -> None:
    """Since the first of the last hour."""
    letters(5, archived_at=system_clock() - timedelta(hours=5))
    letters(12)

    growing = found()["D050"]

    assert growing.facts["count"] == 12
    assert growing.since is not None


def test_recorders_that_do_not_keep_up() -> None:
    """Facts that wait, facts that are missing, letters on the broker."""
    since = system_clock() - timedelta(minutes=20)
    node(facts_lag_seconds=90.0, facts_dropped=2, facts_left_out=1)
    Incident.objects.create(
        incident_id=uuid4(), kind="letters_waiting", at=since, what="They wait."
    )

    behind = found()

    assert set(behind) == {"D006", "D051", "D052", "D053"}
    assert behind["D051"].since == since
    assert behind["D053"].facts["count"] == 3


def test_runs_that_come_close_to_each_timeout() -> None:
    """The soft limit, the visibility timeout, the time that a worker waits at its end."""
    minute(40.0)
    minute(112.0)
    minute(110.0, "media")

    close = found()

    assert set(close) == {"D060", "D061", "D064"}
    assert close["D060"].facts["limit"] == 108
    assert close["D061"].facts["limit"] == 100
    assert all(each.since for each in close.values())


def test_the_longest_run_from_each_queue() -> None:
    """Each may have a timeout of its own."""
    minute(40.0)
    minute(90.0)
    minute(30.0, "media")

    longest = database.ask("default")[0]["archive"].longest

    assert [(run.queue, run.seconds) for run in longest] == [
        ("celery", 90.0),
        ("media", 30.0),
    ]


def test_a_table_that_somebody_has_deleted() -> None:
    """Though its migration was applied; what cannot be read is said."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE unstuck_taskminute")

    missing = found()

    assert set(missing) == {"D004", "D041"}
    assert "unstuck_taskminute" in missing["D041"].what


def test_a_database_of_a_newer_release_and_one_of_an_older() -> None:
    """By the migrations that were applied."""
    done = MigrationRecorder(connection)
    done.record_applied("unstuck", "0999_later")
    done.record_unapplied("unstuck", "0001_initial")

    told = found()

    assert set(told) == {"D040", "D042"}
    assert "0001_initial" in told["D040"].what
    assert "0999_later" in told["D042"].what


def test_one_that_cannot_be_read_is_not_asked() -> None:
    """The part is named, with what the database said."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE unstuck_deadletter")

    _, unasked = database.ask("default")

    assert "no such table" in unasked[Part.ARCHIVE]
