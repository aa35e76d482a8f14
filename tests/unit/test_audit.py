"""What the audit says of nodes that were told something, when nobody knows the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from unstuck import BrokerUnreachable, Celery
from unstuck.audit import InDoubt, recorded
from unstuck.models import AuditEntry, Node
from unstuck.operations_planned import drop_task
from unstuck.operations_queues import last_pause, pause_queue, resume_queue
from unstuck.operations_tasks import stop_task

pytestmark = pytest.mark.django_db


def stop(app: Celery) -> None:
    stop_task(app, "5f1c", who="olga", why="it hangs")


def drop(app: Celery) -> None:
    drop_task(app, "5f1c", who="olga", why="not wanted")


def resume(app: Celery) -> None:
    now = timezone.now()
    Node.objects.create(
        name="celery@w1", state="ready", started_at=now, seen_at=now, queues=["mail"]
    )
    resume_queue(app, "mail", who="olga", why="the relay is back")


every_deed = pytest.mark.parametrize("act", [stop, drop, resume])


@pytest.fixture
def fails_after_sending(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> Callable[[BaseException], None]:
    """Have remote control raise this once nodes may have heard."""

    def use(error: BaseException) -> None:
        def broadcast(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(app.control, "broadcast", broadcast)

    return use


@every_deed
def test_who_does_not_wait_for_answers_leaves_an_entry(
    app: Celery, fails_after_sending: Callable[..., None], act: Callable[..., None]
) -> None:
    """The nodes were told."""
    fails_after_sending(KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        act(app)

    assert AuditEntry.objects.get().details["unknown"] == "KeyboardInterrupt"


@every_deed
def test_a_connection_that_is_lost_meanwhile_leaves_an_entry(
    app: Celery, fails_after_sending: Callable[..., None], act: Callable[..., None]
) -> None:
    """And it is not said that nothing was done."""
    fails_after_sending(ConnectionResetError("reset by peer"))

    with pytest.raises(InDoubt, match=r"Nobody can say whether it was done.*reset"):
        act(app)

    assert "reset by peer" in AuditEntry.objects.get().details["unknown"]


@every_deed
def test_a_broker_that_is_away_leaves_none(
    app: Celery, act: Callable[..., None]
) -> None:
    """Nobody was told anything."""
    app.conf.broker_url = "redis://127.0.0.1:1/0"

    with pytest.raises(BrokerUnreachable):
        act(app)

    assert not AuditEntry.objects.exists()


def test_a_pause_that_may_have_been_heard_is_a_pause(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it can be ended."""

    def broadcast(command: str, **_: Any) -> list[Any]:
        if command == "active_queues":
            return [{"celery@w1": [{"name": "mail"}]}]
        raise KeyboardInterrupt

    monkeypatch.setattr(app.control, "broadcast", broadcast)

    with pytest.raises(KeyboardInterrupt):
        pause_queue(app, "mail", who="olga", why="the relay is full")

    pause = last_pause("mail")
    assert pause is not None
    assert pause.details == {"queue": "mail", "unknown": "KeyboardInterrupt"}


def test_what_nodes_answer_is_written_whatever_it_is() -> None:
    """A text that no database takes must not undo an entry of what was done."""
    words = {"who": "olga", "why": "now", "details": {"task_id": "5f1c"}}

    with recorded("drop", "5f1c", **words) as deed:
        deed.details["failed"] = {"celery@w1": "a\x00\udce9"}

    failed = AuditEntry.objects.get().details["failed"]
    assert failed == {"celery@w1": "a\\x00\\udce9"}
