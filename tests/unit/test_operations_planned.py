"""Running a task now and dropping it: what the audit says when nobody can say."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from unstuck import Celery, operations_planned
from unstuck.core.errors import ControlError
from unstuck.letters.message import StoredMessage
from unstuck.models import AuditEntry
from unstuck.operations_planned import InDoubt, drop_task, run_now

pytestmark = pytest.mark.django_db


class Refused(Exception):
    """The server says no."""


class Channel:
    """One that has the message, and loses its connection with the answer."""

    connection_errors = (ConnectionError,)
    ResponseError = Refused

    def __init__(self, answer: Callable[[], bool]) -> None:
        self._answer = answer

    def take_delayed(self, delayed: Any, instead: str | None) -> bool:
        return self._answer()


def lost() -> bool:
    raise ConnectionError("reset")


def taken_before() -> bool:
    return False


def interrupted() -> bool:
    raise KeyboardInterrupt


def refused() -> bool:
    raise Refused


def waits(due_at: float) -> tuple[Any, StoredMessage]:
    """A message of 5f1c, as it is found on the broker."""
    delayed = SimpleNamespace(due_at=due_at, content='{"headers": {}}', queue="work")
    stored = StoredMessage(
        body=b"[[], {}, {}]",
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "5f1c", "task": "shop.charge"},
        queue="work",
    )
    return delayed, stored


Answer = Callable[..., None]


@pytest.fixture
def answer(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Have the broker answer like this when a message is to be taken."""

    def use(answer: Callable[[], bool], *due: float) -> None:
        channel = Channel(answer)
        connection = SimpleNamespace(default_channel=channel)
        found = [waits(each) for each in due or (1.0,)]
        monkeypatch.setattr(
            operations_planned, "asking", lambda app: nullcontext(connection)
        )
        monkeypatch.setattr(
            operations_planned.broker, "lasting", lambda channel: channel
        )
        monkeypatch.setattr(operations_planned, "_delayed_of", lambda *_: found)

    return use


@pytest.mark.parametrize("act", [run_now, drop_task])
def test_an_answer_that_is_lost_leaves_its_entry(
    app: Celery, answer: Answer, act: Any
) -> None:
    """It may have been done, and says so."""
    answer(lost)

    with pytest.raises(InDoubt, match="nobody can say whether it was done"):
        act(app, "5f1c", who="olga", why="now")

    assert "answer was lost" in AuditEntry.objects.get().details["unknown"]


def test_what_somebody_else_took_leaves_none(app: Celery, answer: Answer) -> None:
    """Nothing was done."""
    answer(taken_before)

    with pytest.raises(ControlError, match=r"\(any more\)"):
        run_now(app, "5f1c", who="olga", why="now")

    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("act", [run_now, drop_task])
def test_who_does_not_wait_for_the_answer_leaves_an_entry(
    app: Celery, answer: Answer, act: Any
) -> None:
    """The server may have done it."""
    answer(interrupted)

    with pytest.raises(KeyboardInterrupt):
        act(app, "5f1c", who="olga", why="now")

    assert AuditEntry.objects.get().details["unknown"] == "KeyboardInterrupt"


def test_a_refusal_leaves_none(app: Celery, answer: Answer) -> None:
    """The server says itself that it did nothing."""
    answer(refused)

    with pytest.raises(Refused):
        run_now(app, "5f1c", who="olga", why="now")

    assert not AuditEntry.objects.exists()


def test_without_its_result_backend_it_is_dropped_all_the_same(
    app: Celery, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is gone from the broker: the entry stays, and a warning says who was not told."""
    app.conf.result_backend = "no.such.module:Backend"
    answer(lambda: True)

    dropped = drop_task(app, "5f1c", who="olga", why="now")

    assert dropped.queue == "work"
    assert AuditEntry.objects.get().details["task"] == "shop.charge"
    assert "not all could be told of it" in caplog.text


def test_what_comes_after_a_message_is_taken_leaves_its_entry(
    app: Celery, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever breaks it off: the message is away."""
    answer(lambda: True)
    monkeypatch.setattr(operations_planned, "_end_as_revoked", lambda *_: interrupted())

    with pytest.raises(KeyboardInterrupt):
        drop_task(app, "5f1c", who="olga", why="now")

    details = AuditEntry.objects.get().details
    assert (details["queue"], "unknown" in details) == ("work", False)


def test_an_id_that_waits_twice_is_dropped_twice(app: Celery, answer: Answer) -> None:
    """One that is left would run."""
    answer(lambda: True, 1.0, 2.0)

    drop_task(app, "5f1c", who="olga", why="now")

    assert AuditEntry.objects.get().details["messages"] == 2


@pytest.mark.parametrize("act", [run_now, drop_task])
def test_the_second_of_two_is_acted_on_by_its_time(
    app: Celery, answer: Answer, act: Any
) -> None:
    """Whichever the broker has first."""
    answer(lambda: True, 1.0, 2.0)

    act(app, "5f1c", who="olga", why="now", due_ms=2000)
    with pytest.raises(ControlError, match="another time"):
        act(app, "5f1c", who="olga", why="now", due_ms=3000)

    assert "messages" not in AuditEntry.objects.get().details


def test_a_broker_that_is_gone_after_the_first_of_two(
    app: Celery, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it has changed nothing would be wrong."""
    answer(lambda: True)

    def found(*_: Any) -> Any:
        yield waits(1.0)
        raise ConnectionError("reset")

    monkeypatch.setattr(operations_planned, "_delayed_of", found)

    with pytest.raises(InDoubt, match="it may wait a second time"):
        drop_task(app, "5f1c", who="olga", why="now")

    details = AuditEntry.objects.get().details
    assert (details["queue"], "second time" in details["unknown"]) == ("work", True)
