"""The page of the queues: what waits, who consumes them, and pausing one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.unit.command import unstuck
from unstuck import Celery
from unstuck.dashboard.queries import queues as read
from unstuck.models import AuditEntry, Lease, Node, QueueSample
from unstuck.operations_queues import _former

pytestmark = pytest.mark.django_db


def node(name: str, *queues: str, state: str = "ready", seen: int = 0) -> None:
    """A node that was seen so many seconds ago and began with these queues."""
    now = timezone.now()
    Node.objects.create(
        name=name,
        state=state,
        started_at=now,
        seen_at=now - timedelta(seconds=seen),
        queues=list(queues),
    )


def sample(queue: str, *, ago: float = 5, **known: Any) -> None:
    """A queue as it was counted so many seconds ago."""
    at = timezone.now() - timedelta(seconds=ago)
    QueueSample.objects.create(queue=queue, at=at, **known)


def counts(name: str) -> None:
    """The recorder of this node does the chores."""
    until = timezone.now() + timedelta(seconds=10)
    Lease.objects.create(name="chores", holder="1", node=name, until=until)


def audited(what: str, target: str, **details: Any) -> None:
    AuditEntry.objects.create(
        who="olga", what=what, why="why", target=target, details=details
    )


def shown(client: Client) -> str:
    return client.get(reverse("unstuck:queues")).content.decode()


def named(name: str) -> read.Queue:
    found = read.queues(timezone.now(), "unstuck.dead")
    return next(row for row in found.rows if row.name == name)


def test_a_queue_shows_what_was_counted_last(viewer: Client, app: Celery) -> None:
    """And by whom, and when; nothing to act is offered to who may not."""
    counts("celery@w1")
    node("celery@w1", "mail")
    sample("mail", ago=20, waiting=1, consumers=1)
    sample("mail", waiting=1204, oldest_seconds=94.0, reserved=16, consumers=1)

    page = shown(viewer)

    assert "1204" in page
    assert "1 min 34 s" in page
    assert "Counted 5 s ago." in page
    assert "By celery@w1, every fifteen seconds." in page
    assert "No worker consumes it." not in page
    assert reverse("unstuck:queues_pause") not in page


@pytest.mark.parametrize(
    ("nodes", "consumers", "ago", "abandoned", "idle"),
    [
        ([("ready", 0)], 1, 5, False, False),
        ([], 0, 5, True, False),
        ([], None, 5, True, False),
        ([], 2, 5, False, False),
        ([], 2, 600, True, False),
        ([("ready", 600)], 0, 5, True, False),
        ([("gone", 0)], None, 5, True, False),
        ([("ready", 0)], 0, 5, False, True),
        ([("ready", 0)], 0, 600, False, False),
        ([("ready", 0)], None, 5, False, False),
    ],
)
def test_a_queue_without_a_consumer_is_told(
    nodes: list[tuple[str, int]],
    consumers: int | None,
    ago: float,
    abandoned: bool,
    idle: bool,
) -> None:
    """By nodes that are well, or by what the broker said just now."""
    for number, (state, seen) in enumerate(nodes):
        node(f"celery@w{number}", "mail", state=state, seen=seen)
    sample("mail", ago=ago, waiting=0, consumers=consumers)

    row = named("mail")

    assert (row.is_abandoned, row.is_idle) == (abandoned, idle)


def test_a_queue_that_is_no_longer_counted_says_what_to_start(viewer: Client) -> None:
    """Its last node is lost, so nobody asks the broker for it; trouble comes first."""
    node("celery@w1", "alpha")
    node("celery@w2", "media", seen=600)
    sample("alpha", waiting=0, consumers=1)

    page = shown(viewer)

    assert "celery -A PROJECT worker -Q media" in page
    assert page.index("media</b>") < page.index("alpha</b>")


def test_the_queue_of_the_dead_needs_no_worker() -> None:
    """The recorder takes what is in it."""
    sample("unstuck.dead", waiting=0, consumers=0)

    row = named("unstuck.dead")

    assert row.is_dead
    assert not row.is_abandoned


def test_a_pause_is_remembered_until_somebody_resumes(operator: Client) -> None:
    """As the audit has it; workers that were started anew do not know of it."""
    node("celery@w1", "mail")
    sample("mail", waiting=7, consumers=0)
    audited("pause queue", "mail")
    assert named("mail").paused_at
    page = shown(operator)
    assert f"{reverse('unstuck:queues_resume')}?name=mail" in page
    assert "one that is started anew consumes the queue again" in page

    audited("resume queue", "mail")

    assert named("mail").paused_at is None


def test_numbers_that_stand_still_are_said_so(viewer: Client) -> None:
    """With who should count, or that nobody does."""
    node("celery@w1", "mail")
    sample("mail", ago=300, waiting=0)
    assert "No worker's recorder is there to count them." in shown(viewer)

    counts("celery@w1")

    page = shown(viewer)
    assert "Counted 5 min ago: these numbers stand still." in page
    assert "celery@w1 should count them" in page


def test_no_queue_says_why(viewer: Client) -> None:
    """Nobody counts, or somebody is about to."""
    page = shown(viewer)
    assert "none is there. Start a worker" in page
    assert "<table" not in page

    counts("celery@w1")

    assert "celery@w1 counts them" in shown(viewer)


def test_a_resume_makes_no_other_node_a_consumer() -> None:
    """Those that began with the queue, and those of its last pause."""
    node("celery@began", "mail", "other")
    node("celery@else", "other")
    node("celery@lost", "mail", seen=600)
    node("celery@gone", "mail", state="gone")
    assert _former("mail") == ["celery@began"]

    audited("pause queue", "mail", done=["celery@added", "celery@lost"])

    assert _former("mail") == ["celery@added", "celery@began"]


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("pause", "No worker that answered consumes the queue"),
        ("resume", "No node is known that consumed the queue"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    operator: Client, app: Celery, verb: str, said: str
) -> None:
    """Without a reason, or without anybody to do it."""
    url = reverse(f"unstuck:queues_{verb}", query={"name": "mail"})
    assert "the queue mail?" in operator.get(url).content.decode()
    assert "Give a reason" in operator.post(url, {"why": ""}).content.decode()

    assert said in operator.post(url, {"why": "the relay is full"}).content.decode()

    assert not AuditEntry.objects.exists()


def test_a_node_that_does_not_answer_is_named(operator: Client, app: Celery) -> None:
    """It may do it later, so it is in the audit."""
    node("celery@w1", "mail")
    url = reverse("unstuck:queues_resume", query={"name": "mail"})

    page = operator.post(url, {"why": "the relay is back"}).content.decode()

    assert "Not all workers did it." in page
    assert "may do it later: celery@w1" in page
    assert AuditEntry.objects.get().details["silent"] == ["celery@w1"]


def test_the_verb_says_what_the_page_says(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an exit status that is not 0."""
    node("celery@w1", "mail")
    words = ("--reason", "the relay is back", "--timeout", "0.2")

    assert unstuck("queues", "resume", "mail", *words) == 1
    assert "celery@w1 did not answer; it may do it later." in capsys.readouterr().err
    assert unstuck("queues", "pause", "mail", *words) == 1
    assert "No worker that answered consumes" in capsys.readouterr().err
    assert unstuck("queues", "pause", "mail", "--reason", " ") == 2
