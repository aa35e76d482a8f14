"""What needs attention, and the other pages of the archive."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.unit.dashboard.conftest import Login
from tests.unit.dead import archived
from tests.unit.recorder.seen import incident
from unstuck import Celery
from unstuck.models import AuditEntry, Incident, Node, PeriodicEntry
from unstuck.recorder import facts

pytestmark = pytest.mark.django_db


def node(
    name: str, *, state: str = "ready", seen: int = 0, queues: str = "mail"
) -> None:
    """A node that was seen so many seconds ago."""
    now = timezone.now()
    Node.objects.create(
        name=name,
        state=state,
        started_at=now,
        seen_at=now - timedelta(seconds=seen),
        queues=queues.split(),
        concurrency=3,
        celery_version="5.7.0",
    )


def shown(client: Client, name: str, **query: str) -> str:
    return client.get(reverse(f"unstuck:{name}"), query).content.decode()


def test_nothing_to_do_says_so(viewer: Client) -> None:
    """With a node that is well and no letters."""
    node("celery@w1")

    page = shown(viewer, "overview")

    assert "Nothing about workers and queues." in page
    assert "There is none." in page


def test_no_worker_at_all_is_told_with_what_to_do(viewer: Client) -> None:
    """The first page after the installation."""
    page = shown(viewer, "overview")

    assert "No worker has been seen yet." in page
    assert "celery -A PROJECT worker" in page


def test_an_overdue_entry_of_beat_is_told(viewer: Client) -> None:
    """With the way to its page; one that is disabled, or in time, is not."""
    now = timezone.now()
    for name, enabled, ago in [("a", True, 60), ("b", False, 60), ("c", True, 5)]:
        PeriodicEntry.objects.create(
            beat="shop",
            name=name,
            task_name="shop.report",
            schedule="each minute",
            enabled=enabled,
            next_run_at=now - timedelta(seconds=ago),
            told_by="celerybeat@w1",
            told_at=now,
        )

    page = shown(viewer, "overview")

    assert "1 periodic entry is overdue." in page
    assert reverse("unstuck:periodic") in page


def test_a_lost_node_and_its_queue_are_told(viewer: Client) -> None:
    """Only queues that no other node consumes, nor what has said goodbye in order."""
    node("celery@w1", queues="mail")
    node("celery@w2", seen=300, queues="mail media")

    page = shown(viewer, "overview")

    assert "celery@w2 is lost" in page
    assert "No worker consumes the queue media; the last was celery@w2." in page
    assert "No worker consumes the queue mail" not in page


def test_many_lost_nodes_do_not_fill_the_page(viewer: Client) -> None:
    """Some are named, the rest is counted; those of last week are not news."""
    for number in range(8):
        node(f"pod-{number}", seen=300)
    node("pod-of-last-week", seen=6 * 86_400)

    page = shown(viewer, "overview")

    assert page.count("it did not say goodbye") == 5
    assert "3 more are lost." in page
    assert "pod-of-last-week is lost" not in page


def test_nothing_is_said_of_workers_to_those_who_may_not_see_them(login: Login) -> None:
    """Nor that they are well."""
    page = shown(login("view_incident"), "overview")

    assert "Needs attention" not in page
    assert "No worker" not in page


def test_letters_are_counted_by_reason(viewer: Client, app: Celery) -> None:
    """Those that nobody has replayed."""
    archived(app)
    archived(app)

    page = " ".join(shown(viewer, "overview").split())

    assert '<b>2</b> <span class="badge failed">failed</span>' in page
    assert "2</b> of 2 fail in <code>charge</code>" in page


def test_workers_are_shown_with_those_in_trouble_first(viewer: Client) -> None:
    """State, queues, versions."""
    node("celery@w1")
    node("celery@w2", seen=300)

    page = shown(viewer, "workers")

    assert page.index("celery@w2") < page.index("celery@w1")
    for words in ("lost", "ready", "mail", "Celery 5.7.0"):
        assert words in page


def test_incidents_are_filtered_and_shown(viewer: Client) -> None:
    """With the stack on a page of their own."""
    facts.store([incident(kind="stall", node="celery@w1", stack="in main")])
    facts.store([incident(kind="lost", node="celery@w2", what="Gone.")])

    page = shown(viewer, "incidents", kind="stall")
    row = Incident.objects.get(kind="stall").pk
    one = viewer.get(reverse("unstuck:incidents_one", args=[row])).content.decode()

    assert "Silent." in page
    assert "Gone." not in page
    assert "in main" in one


def test_the_stack_of_an_incident_is_apart_from_those_of_other_threads(
    viewer: Client,
) -> None:
    """Each in a box, so that the first can open at its innermost frame."""
    stack = "Stack:\n  in main\n\nOther threads:\n\nThread 1:\n  in watch"
    facts.store([incident(stack=stack)])

    row = Incident.objects.get().pk
    one = viewer.get(reverse("unstuck:incidents_one", args=[row])).content.decode()

    assert '<pre class="stack" tabindex="0">Stack:\n  in main</pre>' in one
    assert '<pre tabindex="0">Other threads:\n\nThread 1:\n  in watch</pre>' in one


def test_the_audit_is_filtered(viewer: Client) -> None:
    """By person, action, and words in target or reason."""
    AuditEntry.objects.create(
        who="olga", what="purge", why="harmless", target="3 letters"
    )
    AuditEntry.objects.create(who="omar", what="replay", why="bank", target="t-1")

    for query in (
        {"who": "olga"},
        {"what": "purge"},
        {"text": "HARM"},
        {"text": "3 le"},
    ):
        page = shown(viewer, "audit", **query)
        assert "3 letters" in page
        assert "t-1" not in page


@pytest.mark.parametrize("name", ["letters_one", "incidents_one"])
@pytest.mark.parametrize("row", [7, 2**63, 10**30])
def test_what_is_not_there_is_told_within_the_shell(
    viewer: Client, name: str, row: int
) -> None:
    """A 404 of our own, whatever the number."""
    response = viewer.get(reverse(f"unstuck:{name}", args=[row]))

    assert response.status_code == 404
    assert b"unstuck/dashboard.css" in response.content
