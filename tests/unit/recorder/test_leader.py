"""The table of chores: all of them are done, and nobody is judged too early."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.recorder.seen import NOON, minute
from unstuck import Celery
from unstuck.core.clock import system_clock
from unstuck.models import Incident, Lease, Node, QueueSample, TaskMinute, TaskRun
from unstuck.recorder import facts
from unstuck.recorder.leader import leader_of

pytestmark = pytest.mark.django_db


class Recorder:
    """One that may lead, whose clock stands still until it is set."""

    now = 1000.0

    def __init__(self, app: Celery) -> None:
        self.leader = leader_of(app, "one@host", lambda: self.now)

    def works_for(self, seconds: float) -> None:
        """Let it do what is due, a second after the other."""
        for _ in range(int(seconds)):
            while self.leader.work():
                pass
            self.now += 1


def test_all_chores_are_done(app: Celery) -> None:
    """Samples at once and again and again, what is large after a minute."""
    facts.store([minute(system_clock() - timedelta(days=3)), minute(NOON)])
    old = system_clock() - timedelta(days=400)
    TaskRun.objects.create(run_id="5a0e2a3e-2f9b-4a77-8a9e-6f7b0f6c2a11", ended_at=old)
    QueueSample.objects.create(queue="x", at=system_clock() - timedelta(days=2))
    recorder = Recorder(app)

    recorder.works_for(50)
    assert QueueSample.objects.filter(queue="celery").count() == 4
    assert (TaskRun.objects.count(), TaskMinute.objects.count()) == (1, 2)
    recorder.works_for(20)

    assert not TaskRun.objects.exists()
    assert [hour.span_minutes for hour in TaskMinute.objects.all()] == [60]
    assert not QueueSample.objects.filter(queue="x").exists()
    assert recorder.leader.failed == 0


def node_that_is_lost(**known: Any) -> Node:
    """One that was not seen for an hour."""
    at = system_clock() - timedelta(hours=1)
    facts = {"state": "ready", "started_at": at, "seen_at": at, **known}
    return Node.objects.create(name="lost@host", **facts)


def test_nobody_is_judged_in_the_first_minute(app: Celery) -> None:
    """After an outage of the database nobody has been seen for a while."""
    node_that_is_lost(release="1.0")
    recorder = Recorder(app)

    recorder.works_for(55)
    assert [each.kind for each in Incident.objects.all()] == ["release"]
    recorder.works_for(20)

    assert Incident.objects.filter(kind="node_lost").count() == 1


def test_who_leads_anew_waits_for_another_minute(app: Celery) -> None:
    """It was away from the database, or away itself."""
    recorder = Recorder(app)
    recorder.works_for(70)
    node_that_is_lost()
    recorder.now += 60
    Lease.objects.update(until=system_clock() - timedelta(seconds=1))

    recorder.works_for(55)
    assert not Incident.objects.exists()
    recorder.works_for(20)

    assert Incident.objects.get().kind == "node_lost"
