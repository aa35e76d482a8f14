"""What people are told of a schedule's entries."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.schedules import crontab

from tests.unit.beat.leading import Desk, app_of, scheduler_of, turn
from unstuck.beat.rows import Rows
from unstuck.beat.seen import Eye
from unstuck.models import PeriodicEntry

NAME = "unstuck.beat:shop"


def test_an_entry_is_told_with_when_it_is_due() -> None:
    """Which has passed for one that could not be sent, and why."""
    app = app_of(often=60, nightly=crontab(hour="4", minute="30"))
    scheduler = scheduler_of(app, Desk())
    often = scheduler.schedule["often"]
    often.last_run_at -= timedelta(minutes=10)
    scheduler.refused["often"] = OSError("Connection refused")
    turn(scheduler)

    seen = {one.name: one for one in Eye().look(scheduler)}

    late = datetime.now(UTC) - timedelta(minutes=9)
    assert abs(seen["often"].next_run_at - late) < timedelta(seconds=20)
    assert seen["often"].last_error == "Connection refused"
    assert seen["often"].schedule == "freq: 1.00 minute"
    assert seen["nightly"].next_run_at.strftime("%H:%M:%S") == "04:30:00"
    assert seen["nightly"].schedule == "crontab: 30 4 * * * (m/h/dM/MY/d)"
    assert seen["nightly"].last_error == ""


def test_an_entry_with_a_row_is_told_by_its_row() -> None:
    """django-celery-beat keeps the old entry until it reads its table, in minutes."""
    scheduler = scheduler_of(app_of(often=60), Desk())
    entry = scheduler.schedule["often"]
    now = datetime.now(UTC)
    entry.last_run_at = now - timedelta(hours=1)
    entry.model = SimpleNamespace(last_run_at=now, total_run_count=7, start_time=None)

    (seen,) = Eye().look(scheduler)

    assert seen.last_run_at == now
    assert seen.runs == 7
    assert abs(seen.next_run_at - now - timedelta(minutes=1)) < timedelta(seconds=20)


def test_a_time_without_a_zone_is_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Celery, whatever the zone of the process: DJANGO_CELERY_BEAT_TZ_AWARE."""
    scheduler = scheduler_of(app_of(often=60), Desk())
    now = datetime.now(UTC)
    naive = SimpleNamespace(
        last_run_at=now.replace(tzinfo=None), total_run_count=7, start_time=None
    )
    scheduler.schedule["often"].model = naive
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        (seen,) = Eye().look(scheduler)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert seen.last_run_at == now
    assert abs(seen.next_run_at - now - timedelta(minutes=1)) < timedelta(seconds=20)


@pytest.mark.django_db
def test_rows_follow_the_schedule(django_assert_num_queries: Any) -> None:
    """What changed is written, what is gone is deleted, and all else costs nothing."""
    scheduler = scheduler_of(app_of(one=60, two=60), Desk())
    rows, eye = Rows(NAME, "celerybeat@w1"), Eye()
    PeriodicEntry.objects.create(
        beat=NAME, name="gone", told_by="x", told_at=datetime.now(UTC)
    )
    PeriodicEntry.objects.create(
        beat="unstuck.beat:other", name="one", told_by="x", told_at=datetime.now(UTC)
    )

    rows.write(eye.look(scheduler))
    ours = PeriodicEntry.objects.filter(beat=NAME)
    assert {row.name for row in ours} == {"one", "two"}
    assert ours.get(name="one").told_by == "celerybeat@w1"
    assert not ours.get(name="one").overdue_seconds

    with django_assert_num_queries(0):
        rows.write(eye.look(scheduler))

    scheduler.schedule["one"].last_run_at -= timedelta(hours=1)
    del scheduler.schedule["two"]
    rows.write(eye.look(scheduler))
    assert ours.get().overdue_seconds > 3000
    assert PeriodicEntry.objects.filter(beat="unstuck.beat:other").exists()
