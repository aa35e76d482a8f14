"""Samples of queues: all that a broker tells, and fewer of them the older they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError

from unstuck import Celery, conf
from unstuck.core.clock import system_clock
from unstuck.core.errors import BrokerUnreachable
from unstuck.models import Alert, Node, QueueSample
from unstuck.queues import QueueFacts
from unstuck.recorder import samples
from unstuck.recorder.samples import Samples, store, thin

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def node(name: str, *queues: str, **known: Any) -> Node:
    """A node that was seen just now."""
    now = system_clock()
    facts = {"state": "ready", "started_at": now, "seen_at": now, **known}
    return Node.objects.create(name=name, queues=list(queues), **facts)


def stored() -> list[tuple[Any, ...]]:
    """What there is, without the time."""
    names = ("queue", "waiting", "oldest_seconds", "reserved", "delayed", "consumers")
    return list(QueueSample.objects.order_by("pk").values_list(*names))


def test_what_is_not_known_is_null() -> None:
    """And what is known is not."""
    told = QueueFacts(
        name="known",
        waiting=3,
        oldest_seconds=1.5,
        reserved={"one@host": 2, "two@host": 3},
        delayed=4,
        consumers=2,
    )

    store(NOON, [told, QueueFacts(name="unknown", waiting=None)])

    assert stored() == [
        ("known", 3, 1.5, 5, 4, 2),
        ("unknown", None, None, None, None, None),
    ]


def test_it_counts_in_one_turn_and_stores_in_the_next(app: Celery) -> None:
    """The queues of all nodes that are there, ours, and the one of the letters."""
    node("one@host", "media", "celery")
    node("two@host", "mail")
    node("old@host", "old", seen_at=system_clock() - timedelta(hours=25))
    own = Samples(app)

    assert own.take()
    assert stored() == []
    assert not own.take()

    names = [name for name, *_ in stored()]
    assert names == ["celery", "unstuck.dead", "mail", "media"]
    assert system_clock() - QueueSample.objects.first().at < timedelta(minutes=1)


def test_a_queue_is_counted_when_its_only_worker_has_died(
    app: Celery, settings: Any
) -> None:
    """For a day, and for as long as an alert is of it: messages may wait there."""
    settings.UNSTUCK = {"ALERTS": [{"to": "shop.tell"}]}
    (target,) = conf.current().alerts
    now = system_clock()
    node("one@host", "media")
    node("dead@host", "mail", "late", seen_at=now - timedelta(hours=23))
    for subject, resolved_at in (("late", None), ("well", now)):
        Alert.objects.create(
            alert_id=uuid4(),
            target_id=target.id,
            condition="queue_older_than",
            subject=subject,
            since=NOON,
            seen_at=now,
            resolved_at=resolved_at,
        )
    own = Samples(app)

    own.take()
    own.take()

    names = [name for name, *_ in stored()]
    assert names == ["celery", "unstuck.dead", "late", "media", "mail"]


def test_those_that_are_too_many_are_told_once(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that nobody counts have no samples, and nobody would notice."""
    monkeypatch.setattr(samples, "MOST_QUEUES", 2)
    node("one@host", "media", "celery", "mail")
    own = Samples(app)

    for _ in range(4):
        own.take()

    assert {name for name, *_ in stored()} == {"celery", "unstuck.dead"}
    assert [record.getMessage() for record in caplog.records] == [
        "There are too many queues to count them all; the others have no depth and no "
        "alerts: counted=2 left_out=2"
    ]


def test_queues_that_there_was_no_time_for_have_their_turn_next(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a broker that is slow no queue is never counted."""
    count = samples.queues.count

    def slow(app: Celery, names: list[str], *, within: float) -> list[QueueFacts]:
        return count(app, names[:2], within=within)

    monkeypatch.setattr(samples.queues, "count", slow)
    node("one@host", "mail", "media")
    own = Samples(app)

    for _ in range(6):
        own.take()

    names = [name for name, *_ in stored()]
    assert names == ["celery", "unstuck.dead", "mail", "media", *names[:2]]


def test_a_broker_that_is_away_leaves_a_gap(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is invented; it is the one who calls who counts it."""

    def away(*_: Any, **__: Any) -> Any:
        raise BrokerUnreachable("The broker did not answer")

    own = Samples(app)
    with monkeypatch.context() as broken:
        broken.setattr(samples.queues, "count", away)
        with pytest.raises(BrokerUnreachable):
            own.take()
    assert own.take()
    own.take()

    assert len(stored()) == 2


def test_a_database_that_is_away_leaves_a_gap(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted then is old when it is back."""

    def away(*_: Any) -> None:
        raise OperationalError("gone")

    own = Samples(app)
    assert own.take()
    with monkeypatch.context() as broken:
        broken.setattr(samples, "store", away)
        with pytest.raises(OperationalError):
            own.take()

    assert own.take()
    assert stored() == []


def test_old_samples_are_thinned() -> None:
    """All of a day, then one a minute, after a week one in a quarter of an hour."""
    facts = [QueueFacts(name="work", waiting=1), QueueFacts(name="mail", waiting=1)]
    for second in range(0, 3600, 15):
        store(NOON + timedelta(seconds=second), facts)

    def left(age: timedelta) -> int:
        while thin(NOON + timedelta(hours=1) + age):
            pass
        return QueueSample.objects.filter(queue="work").count()

    ages = (timedelta(hours=22), timedelta(hours=25), timedelta(days=7, hours=1))
    assert [left(age) for age in ages] == [240, 60, 4]
    minutes = [sample.at.minute for sample in QueueSample.objects.filter(queue="mail")]
    assert sorted(minutes) == [0, 15, 30, 45]


def test_a_minute_whose_beginning_was_missed_has_its_sample_all_the_same() -> None:
    """The first that there is of it is kept."""
    for second in (5, 50, 130, 145):
        at = NOON + timedelta(seconds=second)
        store(at, [QueueFacts(name="work", waiting=second)])

    while thin(NOON + timedelta(days=2)):
        pass

    kept = QueueSample.objects.order_by("at").values_list("waiting", flat=True)
    assert list(kept) == [5, 130]


def test_thinning_takes_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No DELETE takes the table for long."""
    monkeypatch.setattr(samples, "DELETED_AT_ONCE", 2)
    for second in range(0, 60, 15):
        at = NOON + timedelta(seconds=second)
        store(at, [QueueFacts(name="work", waiting=1)])

    said = [thin(NOON + timedelta(days=2)) for _ in range(3)]

    assert said == [True, True, False]
    assert QueueSample.objects.count() == 1
