"""Facts between the channel and the database: held, bounded, and counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError

from tests.unit.recorder.seen import NOON, minute, run
from tests.waiting import eventually
from unstuck.core.facts import Running
from unstuck.models import Incident, Node, TaskMinute, TaskRun
from unstuck.recorder import facts, intake
from unstuck.recorder.intake import Intake
from unstuck.worker.channel import FactChannel

pytestmark = pytest.mark.django_db


@pytest.fixture
def channel() -> Iterator[FactChannel]:
    """A channel that both ends of are in this process."""
    channel = FactChannel()
    yield channel
    channel.close()


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The database cannot be reached until this is undone."""

    def refuses(*_: Any) -> None:
        raise OperationalError("could not connect to server")

    monkeypatch.setattr(facts, "store", refuses)
    return monkeypatch


def stored() -> list[str]:
    """The ids of the tasks that have rows, as they came."""
    return list(TaskRun.objects.order_by("pk").values_list("task_id", flat=True))


def send(channel: FactChannel, *names: str) -> None:
    """Send a run for each name."""
    for name in names:
        assert channel.send(run(name))


def test_facts_are_stored_in_batches(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says when there is more to store."""
    monkeypatch.setattr(intake, "BATCH", 2)
    own = Intake(channel)
    send(channel, "1", "2", "3")

    assert own.take() == 3
    assert own.store()
    assert stored() == ["1", "2"]
    assert not own.store()
    assert stored() == ["1", "2", "3"]
    assert not own.store()


def test_waiting_takes_what_comes(channel: FactChannel) -> None:
    """The kernel's buffer is emptied also while nothing is stored."""
    own = Intake(channel)
    send(channel, "1")

    began = time.monotonic()
    own.wait(0.2)

    assert 0.15 < time.monotonic() - began < 5
    assert channel.receive() == []
    own.store()
    assert stored() == ["1"]


def test_waiting_ends_with_a_batch(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes what is there even where there is no time to wait."""
    monkeypatch.setattr(intake, "BATCH", 2)
    own = Intake(channel)
    send(channel, "1", "2")
    began = time.monotonic()

    own.wait(60)
    send(channel, "3")
    own.wait(0)

    assert time.monotonic() - began < 30
    assert channel.receive() == []


@pytest.mark.usefixtures("away")
def test_what_cannot_be_stored_stays(
    channel: FactChannel, away: pytest.MonkeyPatch
) -> None:
    """And is stored when the database is back."""
    own = Intake(channel)
    send(channel, "1")
    own.take()

    with pytest.raises(OperationalError):
        own.store()
    away.undo()
    own.store()

    assert stored() == ["1"]


def test_the_oldest_of_too_many_are_dropped(
    channel: FactChannel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What happened last says most; how many it were is logged."""
    monkeypatch.setattr(intake, "MOST_HELD", 3)
    own = Intake(channel)
    send(channel, "1", "2")
    own.take()
    send(channel, "3", "4", "5")
    own.take()

    own.store()

    assert stored() == ["3", "4", "5"]
    assert "dropped=2" in caplog.text


def test_dropped_facts_are_told_once_a_minute(
    channel: FactChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the senders, too; a flood of facts is no flood of log lines."""
    now = 0.0
    own = Intake(channel, monotonic=lambda: now)

    def lose(number: int) -> None:
        channel._untold += number
        send(channel, "next")
        own.take()

    lose(3)
    lose(4)
    now = 59.0
    lose(5)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    now = 61.0
    own.wait(0)
    own.wait(0)

    assert [record.args for record in caplog.records] == [
        {"dropped": 3},
        {"dropped": 9},
    ]


def test_at_the_end_everything_is_stored(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In hand or still in the channel, however much it is."""
    monkeypatch.setattr(intake, "BATCH", 2)
    own = Intake(channel)
    send(channel, "1", "2", "3")
    own.take()
    send(channel, "4", "5", "6")

    own.finish()

    assert stored() == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.usefixtures("away")
def test_the_end_does_not_wait_for_a_database(
    channel: FactChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """What is lost is logged."""
    own = Intake(channel)
    send(channel, "1", "2")

    own.finish()

    assert "lost with the recorder: lost=2" in caplog.text


def test_facts_are_taken_also_while_nobody_stores(channel: FactChannel) -> None:
    """The kernel holds but a few; a database that hangs must not cost the others."""
    own = Intake(channel)
    with own.always_taking():
        send(channel, "1", "2")
        eventually(lambda: len(own._held) == 2)

    own.store()
    assert stored() == ["1", "2"]
    send(channel, "3")
    assert len(channel.receive()) == 1


def test_what_was_begun_is_stored_whole(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch, away: pytest.MonkeyPatch
) -> None:
    """Its commit may have worked unheard: it stays as it is, whatever comes after it."""
    monkeypatch.setattr(intake, "MOST_HELD", 3)
    own = Intake(channel)
    send(channel, "1", "2")
    own.take()
    with pytest.raises(OperationalError):
        own.store()
    send(channel, "3", "4", "5", "6")
    own.take()
    away.undo()

    own.store()
    assert stored() == ["1", "2"]
    own.store()
    assert stored() == ["1", "2", "4", "5", "6"]


def test_a_commit_that_was_not_heard_of_counts_once(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the node says which batch was the last."""
    Node.objects.create(name="celery@host", started_at=NOON, seen_at=NOON)
    own = Intake(channel, node="celery@host")
    real = facts.store

    def goes_deaf(*given: Any) -> int:
        real(*given)
        raise OperationalError("server closed the connection unexpectedly")

    channel.send(minute(counts={"succeeded": 5}))
    own.take()
    with monkeypatch.context() as deaf:
        deaf.setattr(facts, "store", goes_deaf)
        with pytest.raises(OperationalError):
            own.store()
    own.store()
    assert TaskMinute.objects.get().succeeded == 5

    channel.send(minute(counts={"succeeded": 5}))
    own.take()
    own.store()
    assert TaskMinute.objects.get().succeeded == 10


def test_what_is_missing_leaves_a_row(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a minute at most, when rows can be written; and it is counted for the node."""
    monkeypatch.setattr(intake, "MOST_HELD", 2)
    now = 0.0
    own = Intake(channel, monotonic=lambda: now, node="celery@host")

    def lose(*names: str) -> None:
        send(channel, *names)
        own.take()
        own.store()
        own.store()

    lose("1", "2", "3")
    lose("4", "5", "6", "7")
    now = 61.0
    lose("8")

    assert own.dropped == 3
    told = [
        (row.kind, row.node, row.details) for row in Incident.objects.order_by("id")
    ]
    assert told == [
        ("facts_dropped", "celery@host", {"dropped": 1}),
        ("facts_dropped", "celery@host", {"dropped": 2}),
    ]


def test_what_no_database_takes_is_counted(channel: FactChannel) -> None:
    """It is left out, and the others are there."""
    own = Intake(channel)
    channel.send(run("odd", pid=2**70))
    send(channel, "1")
    own.take()

    own.store()

    assert stored() == ["1"]
    assert own.left_out == 1


def test_what_runs_is_not_stored_but_known(channel: FactChannel) -> None:
    """The last word counts; it is no fact that anybody waits for."""
    own = Intake(channel)
    for runs in ([{"task_id": "1"}], [{"task_id": "2"}, {"task_id": "3"}]):
        channel.send(Running(at=NOON, runs=runs))

    own.take()

    assert own.running == [{"task_id": "2"}, {"task_id": "3"}]
    assert not own.store()
    assert own.lag_seconds == 0


def test_the_lag_is_the_age_of_the_oldest_fact_that_is_not_stored(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it waits for its turn, or for the database to take its batch."""
    monkeypatch.setattr(intake, "BATCH", 1)
    now = 0.0
    own = Intake(channel, monotonic=lambda: now)
    lags = [own.lag_seconds]
    for now in (10.0, 20.0):  # noqa: B007 - read by the clock
        send(channel, "1")
        own.take()
    now = 25.0
    lags.append(own.lag_seconds)
    with monkeypatch.context() as away:
        away.setattr(facts, "store", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            own.store()
    lags.append(own.lag_seconds)
    own.store()
    lags.append(own.lag_seconds)
    own.store()
    lags.append(own.lag_seconds)

    assert lags == [0.0, 15.0, 15.0, 5.0, 0.0]
