"""What the leader sees of others: lost nodes, letters that wait, releases that come."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.recorder.seen import NOON
from unstuck.models import Incident, Node, QueueSample
from unstuck.recorder.fleet import (
    look_at_letters,
    look_at_nodes,
    look_at_releases,
)

pytestmark = pytest.mark.django_db


def node(name: str = "one@host", **known: Any) -> Node:
    """A node, new or as it is now."""
    facts = {"state": "ready", "started_at": NOON, "seen_at": NOON, **known}
    return Node.objects.update_or_create(name=name, defaults=facts)[0]


def incidents() -> list[tuple[str, str, bool]]:
    """Kind, node and whether it is over, in their order."""
    found = Incident.objects.order_by("pk")
    return [(one.kind, one.node, one.resolved_at is not None) for one in found]


def test_a_node_that_is_lost_is_an_incident_once() -> None:
    """However often it is looked for; others are none of it."""
    node("lost@host", host="h", pid=7)
    node("gone@host", state="gone")
    node("well@host", seen_at=NOON + timedelta(seconds=30))

    for seconds in (59, 61, 71, 81):
        look_at_nodes(NOON + timedelta(seconds=seconds))

    assert incidents() == [("node_lost", "lost@host", False)]
    incident = Incident.objects.get()
    assert incident.at == NOON + timedelta(seconds=61)
    assert "lost@host was last seen at 2026-03-01 12:00:00 UTC" in incident.what
    assert incident.details == {"host": "h", "pid": 7, "state": "ready"}


@pytest.mark.parametrize("back", ["seen", "gone", "forgotten"])
def test_it_is_resolved_when_the_node_is_back_or_forgotten(back: str) -> None:
    """And comes again when that is lost."""
    node()
    look_at_nodes(NOON + timedelta(seconds=61))
    match back:
        case "seen":
            node(seen_at=NOON + timedelta(seconds=70))
        case "gone":
            node(state="gone")
        case "forgotten":
            Node.objects.all().delete()

    look_at_nodes(NOON + timedelta(seconds=71))
    assert incidents() == [("node_lost", "one@host", True)]
    assert Incident.objects.get().resolved_at == NOON + timedelta(seconds=71)
    node(seen_at=NOON + timedelta(seconds=80))
    look_at_nodes(NOON + timedelta(hours=1))

    assert incidents()[1:] == [("node_lost", "one@host", False)]


def test_two_leaders_see_the_same_loss() -> None:
    """One of them may not know yet that it leads no more."""
    node()
    look_at_nodes(NOON + timedelta(seconds=61))
    Incident.objects.update(kind="hidden from the other one")

    look_at_nodes(NOON + timedelta(seconds=62))

    assert Incident.objects.count() == 1


def sampled(minutes: float, waiting: int | None, queue: str = "unstuck.dead") -> None:
    """What was counted so many minutes after noon."""
    at = NOON + timedelta(minutes=minutes)
    QueueSample.objects.create(queue=queue, at=at, waiting=waiting)


def look(minutes: float) -> list[tuple[str, str, bool]]:
    """Look at the letters so many minutes after noon."""
    look_at_letters(NOON + timedelta(minutes=minutes), "unstuck.dead")
    return incidents()


def test_letters_that_wait_for_long_are_an_incident() -> None:
    """Until there is an instant in which none waits."""
    for minute in range(20):
        sampled(minute, 3)
        sampled(minute, 0, queue="celery")
        seen = look(minute + 0.5)
        assert bool(seen) == (minute >= 9), minute
    assert seen == [("letters_waiting", "", False)]
    assert Incident.objects.get().details == {"queue": "unstuck.dead", "waiting": 3}

    sampled(20, 0)

    assert look(20.5) == [("letters_waiting", "", True)]


def test_letters_that_come_and_go_are_no_incident() -> None:
    """There may be some at each glance, but not at all of them."""
    for minute in range(30):
        sampled(minute, 0 if minute % 9 == 0 else 5)
        assert look(minute + 0.5) == []


def test_nothing_is_known_without_samples() -> None:
    """Nor of a queue that nobody has declared."""
    assert look(0) == []
    sampled(0, None)
    assert look(9.5) == []


def test_an_open_incident_stays_open_while_it_is_too_early_to_tell() -> None:
    """After a gap in the samples."""
    for minute in range(12):
        sampled(minute, 3)
    assert look(11.5) == [("letters_waiting", "", False)]
    assert look(59.5) == [("letters_waiting", "", False)]
    sampled(60, 2)

    assert look(60.5) == [("letters_waiting", "", False)]


def test_a_release_is_marked_when_it_comes() -> None:
    """Once, at the start of its first node; going back is a mark as well."""
    node(release="")
    look_at_releases()
    for number, release in enumerate(["1.0", "1.0", "1.1", "1.1", "1.0"]):
        started_at = NOON + timedelta(minutes=number)
        node(f"{number}@host", release=release, started_at=started_at)
        look_at_releases()
        look_at_releases()

    marks = Incident.objects.filter(kind="release").order_by("at")
    assert [mark.details for mark in marks] == [
        {"release": "1.0", "before": None},
        {"release": "1.1", "before": "1.0"},
        {"release": "1.0", "before": "1.1"},
    ]
    assert [mark.at.minute for mark in marks] == [0, 2, 4]
    assert marks[1].what == "Release 1.1 has come: 2@host is of it."
