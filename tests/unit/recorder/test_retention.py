"""Retention: rows go when they are older than the setting says."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import Model

from unstuck.core.settings import RETENTION_DAYS
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
from unstuck.recorder import retention
from unstuck.recorder.fleet import look_at_releases
from unstuck.recorder.retention import KINDS, prune_batch

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 5, 31, 12, 0, tzinfo=UTC)
ALL = sorted(KINDS)


def kept(kind: str, age: timedelta, now: datetime = NOW) -> Model:
    """A row of this kind and age."""
    at = now - age
    match kind:
        case "letters":
            letter = DeadLetter.objects.create(
                letter_id=uuid.uuid4(), message=b"", reason="failed", buried_at=at
            )
            DeadLetter.objects.filter(pk=letter.pk).update(archived_at=at)
            return letter
        case "runs":
            return TaskRun.objects.create(run_id=uuid.uuid4(), ended_at=at)
        case "minutes":
            return TaskMinute.objects.create(minute=at)
        case "incidents":
            return Incident.objects.create(incident_id=uuid.uuid4(), at=at)
        case "nodes":
            return Node.objects.create(
                name=uuid.uuid4(), state="ready", started_at=at, seen_at=at
            )
        case "samples":
            return QueueSample.objects.create(queue="work", at=at)
        case "outbox":
            return OutboxMessage.objects.create(
                message_id=uuid.uuid4(), written_at=at, due_at=at
            )
        case _:
            entry = AuditEntry.objects.create(who="bob", what="replay")
            AuditEntry.objects.update(at=at)
            return entry


def prune_all(now: datetime = NOW) -> int:
    """Prune until nothing is left to prune."""
    total = 0
    while deleted := prune_batch(now):
        total += deleted
    return total


def exists(row: Model) -> bool:
    """Whether the row is still there."""
    return type(row)._default_manager.filter(pk=row.pk).exists()


def test_every_kind_of_the_setting_is_pruned() -> None:
    """No more and no fewer."""
    assert set(KINDS) == set(RETENTION_DAYS)


@pytest.mark.parametrize("kind", ALL)
def test_rows_go_when_their_time_is_over(kind: str) -> None:
    """A day more is too much, a day less is not."""
    days = RETENTION_DAYS[kind]
    old = kept(kind, timedelta(days=days + 1))
    assert prune_all() == 1
    assert not exists(old)

    young = kept(kind, timedelta(days=days - 1))
    assert prune_all() == 0
    assert exists(young)


def test_a_letter_that_waited_long_on_the_broker_is_kept_from_when_it_came() -> None:
    """As nobody could see it before."""
    letter = kept("letters", timedelta(days=RETENTION_DAYS["letters"] + 1))
    DeadLetter.objects.update(archived_at=NOW)

    assert prune_all() == 0
    assert exists(letter)


@pytest.mark.parametrize("kind", ALL)
def test_the_project_says_how_long(settings: Any, kind: str) -> None:
    """What it does not say keeps its default."""
    settings.UNSTUCK = {"RETENTION_DAYS": {kind: 0.5}}
    for each in ALL:
        kept(each, timedelta(hours=13))

    assert prune_all() == 1
    assert not KINDS[kind][0]._default_manager.exists()


def test_the_last_release_is_remembered_however_long_it_lasts() -> None:
    """Else it would have come anew with the next node that starts."""
    old, last = (
        Incident.objects.create(
            incident_id=uuid.uuid4(),
            kind="release",
            at=NOW - timedelta(days=days),
            details={"release": release},
        )
        for days, release in ((200, "1.0"), (100, "1.1"))
    )
    Node.objects.create(
        name="one@host", state="ready", release="1.1", started_at=NOW, seen_at=NOW
    )

    assert prune_all() == 1
    look_at_releases()

    assert not exists(old)
    assert list(Incident.objects.all()) == [last]


def test_as_long_as_can_be_said_is_for_ever(settings: Any) -> None:
    """It lies before the first day of any calendar."""
    settings.UNSTUCK = {"RETENTION_DAYS": {"runs": 1_000_000}}
    row = kept("runs", timedelta(days=700_000))

    assert prune_all() == 0
    assert exists(row)


def test_rows_go_in_batches_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """No DELETE takes a table for long."""
    monkeypatch.setattr(retention, "BATCH", 2)
    rows = [kept("runs", timedelta(days=days)) for days in (98, 99, 97, 100, 96, 1)]

    assert prune_batch(NOW) == 2
    assert [exists(row) for row in rows] == [True, False, True, False, True, True]
    assert prune_batch(NOW) == 2
    assert prune_batch(NOW) == 1
    assert prune_batch(NOW) == 0
    assert exists(rows[-1])


def test_nothing_to_do_costs_a_query_for_each_kind(
    django_assert_max_num_queries: Any,
) -> None:
    """By the index on the time; and a transaction around them."""
    for kind in ALL:
        kept(kind, timedelta(0))

    with django_assert_max_num_queries(len(ALL) + 2):
        prune_batch(NOW)
