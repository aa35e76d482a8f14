"""The row of a node: written now and then, and when its state changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.recorder.seen import NOON, about
from unstuck import Celery
from unstuck.core.clock import system_clock
from unstuck.models import Node
from unstuck.pool.board import MAIN, Board, Column
from unstuck.recorder.node import Presence, broker_kind

pytestmark = pytest.mark.django_db


MISSING = {"facts_dropped": 3, "facts_left_out": 4, "facts_lag_seconds": 1.5}


def test_a_row_says_who_it_is() -> None:
    """And what it had to leave out."""
    Presence(about(), Board(), lambda: MISSING).tell()

    node = Node.objects.get()
    assert (node.name, node.pid, node.state) == ("celery@host", 7, "starting")
    assert (node.pool, node.concurrency) == ("shop:Pool", 2)
    assert (node.queues, node.broker) == (["mail", "work"], "redis")
    assert {name: getattr(node, name) for name in MISSING} == MISSING
    assert node.started_at == NOON
    assert system_clock() - node.seen_at < timedelta(minutes=1)
    assert node.unstuck_version
    assert node.celery_version
    assert node.python_version


def test_there_is_one_row_however_often_it_starts() -> None:
    """The last start is the one that counts; what was stored last stays known."""
    board = Board()
    Presence(about(), board).tell()
    Node.objects.update(last_batch="5a0e2a3e-2f9b-4a77-8a9e-6f7b0f6c2a11")
    Presence(about(pid=8), board).tell()
    Presence(about(name="other@host"), board).tell()

    node = Node.objects.get(name="celery@host")
    assert (node.pid, Node.objects.count()) == (8, 2)
    assert node.last_batch is not None


def test_it_is_written_every_ten_seconds_and_when_the_state_changes() -> None:
    """And not each time that somebody asks."""
    now, board = 0.0, Board()
    presence = Presence(about(), board, monotonic=lambda: now)

    def is_told() -> bool:
        Node.objects.update(host="nobody")
        presence.tell()
        return Node.objects.get().host != "nobody"

    presence.tell()
    told = []
    for now in (5.0, 9.9, 10.0, 15.0):  # noqa: B007 - read by the clock
        told.append(is_told())
    board.row(MAIN)[Column.READY] = 1
    told += [is_told(), is_told()]

    assert told == [False, False, True, False, True, False]
    assert Node.objects.get().state == "ready"


def test_a_recorder_that_ends_alone_says_no_goodbye() -> None:
    """Only a node that stops is gone."""
    board = Board()
    presence = Presence(about(), board)
    presence.tell()

    presence.leave()
    assert Node.objects.get().state == "starting"
    board.row(MAIN)[Column.STOPPING] = 1
    presence.leave()
    assert Node.objects.get().state == "gone"


@pytest.mark.parametrize(
    ("state", "unseen", "condition"),
    [
        ("ready", 59, "ready"),
        ("ready", 61, "lost"),
        ("stopping", 61, "lost"),
        ("gone", 61, "gone"),
    ],
)
def test_who_is_not_seen_for_long_is_lost(
    state: str, unseen: int, condition: str
) -> None:
    """Unless it has said goodbye."""
    node = Node(state=state, seen_at=system_clock() - timedelta(seconds=unseen))

    assert node.condition == condition


def test_what_is_gone_runs_nothing() -> None:
    """Whatever it has said last."""
    board, runs = Board(), [{"task_id": "id"}]
    presence = Presence(about(), board, lambda: {"running": runs})
    presence.tell()
    assert Node.objects.get().running == runs

    board.row(MAIN)[Column.STOPPING] = 1
    presence.leave()

    assert Node.objects.get().running == []


def test_a_release_is_what_the_project_says(settings: Any) -> None:
    """Or nothing."""
    Presence(about(), Board()).tell()
    settings.UNSTUCK = {"RELEASE": "2026.11.1"}
    Presence(about(name="new@host"), Board()).tell()

    releases = Node.objects.order_by("pk").values_list("release", flat=True)
    assert list(releases) == ["", "2026.11.1"]


def test_names_are_as_long_as_their_column() -> None:
    """And can be stored, whatever is in them."""
    Presence(about(name="celery@\x00" + "x" * 300), Board()).tell()

    assert len(Node.objects.get().name) == 255


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("unstuck+redis://user:secret@example.com:6379/0", "unstuck+redis"),
        ("sentinel://one:26379;sentinel://:secret@two:26379", "sentinel"),
        (["amqps://user:secret@one//", "amqps://user:secret@two//"], "amqps"),
        ("user:secret@example.com", "amqp"),
        (None, "amqp"),
    ],
)
def test_of_a_broker_only_its_kind_is_known(url: Any, kind: str) -> None:
    """No address, no user, no password."""
    app = Celery(broker=url, set_as_current=False)

    assert broker_kind(app) == kind
