"""The page of what runs: how long, against which limits, and how old that is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from unstuck import Celery
from unstuck.dashboard.queries.running import running
from unstuck.models import AuditEntry, Node
from unstuck.templatetags.unstuck_dashboard import span

pytestmark = pytest.mark.django_db


def told(task_id: str, *, ran: float, seen: float = 0, **known: Any) -> dict[str, Any]:
    """A run as the recorder writes it, ``ran`` seconds old when it was seen."""
    started = timezone.now() - timedelta(seconds=ran + seen)
    essence = {
        "task_id": task_id,
        "task_name": "shop.send",
        "queue": "mail",
        "started_at": started.isoformat(),
        "soft": None,
        "hard": None,
        "pid": 4711,
    }
    return {**essence, **known}


def node(name: str, *runs: dict[str, Any], state: str = "ready", seen: int = 0) -> None:
    """A node that was seen so many seconds ago and ran this."""
    now = timezone.now()
    Node.objects.create(
        name=name,
        state=state,
        started_at=now,
        seen_at=now - timedelta(seconds=seen),
        running=list(runs),
    )


def shown(client: Client, name: str = "running", **query: str) -> str:
    return client.get(reverse(f"unstuck:{name}"), query).content.decode()


def test_a_run_is_shown_with_its_limits_and_its_age(viewer: Client) -> None:
    """Where, for how long when its node was seen, and how old that is."""
    node("celery@w1", told("5f1c", ran=90, seen=20, soft=60, hard=180), seen=20)

    page = shown(viewer)

    assert f"{reverse('unstuck:task')}?id=5f1c" in page
    assert "1 min 30 s" in page
    assert "of 3 min" in page
    assert "soft 1 min" in page
    assert "beyond its soft limit" in page
    assert "as of 20 s ago" in page
    assert "1 node tells; its word is from 20 s ago." in page
    assert "inspect active" in page
    assert reverse("unstuck:running_stop") not in page


@pytest.mark.parametrize(
    ("ran", "limits", "level", "used", "mark"),
    [
        (5, {"soft": 10, "hard": 20}, "fine", 25, 50),
        (15, {"soft": 10, "hard": 20}, "late", 75, 50),
        (25, {"soft": 10, "hard": 20}, "over", 100, 50),
        (25, {"hard": 100}, "fine", 25, None),
        (5, {"soft": 10}, "fine", 50, None),
        (5, {}, "fine", 0, None),
    ],
)
def test_a_bar_tells_how_much_is_left(
    ran: int, limits: dict[str, int], level: str, used: int, mark: int | None
) -> None:
    """Its end is the hard limit, or the soft one where there is no other."""
    node("celery@w1", told("a", ran=ran + 0.01, **limits))

    (run,) = running().runs

    assert (run.level, run.used, run.soft_mark) == (level, used, mark)


def test_the_longest_is_first_and_what_a_lost_node_ran_is_marked(
    operator: Client,
) -> None:
    """A node that has gone runs nothing."""
    node("celery@w1", told("short", ran=3), told("long", ran=300))
    node("celery@w2", told("lost", ran=60, seen=600), seen=600)
    node("celery@w3", told("gone", ran=60), state="gone")

    page = shown(operator)

    assert [run.task_id for run in running().runs] == ["lost", "long", "short"]
    assert '<span class="badge lost">lost</span>' in page
    assert "1 node tells" in page
    assert f"{reverse('unstuck:running_stop')}?id=long" in page


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3_605, "1 h"),
        (9_400, "2 h 36 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float | None, said: str) -> None:
    """And none that is nothing."""
    assert span(seconds) == said


def test_odd_rows_keep_nothing_else_out() -> None:
    """Of a version that writes other words."""
    node("celery@w1", {"id": "x"}, told("b", ran=9, started_at="?"), told("a", ran=9))

    assert [run.task_id for run in running().runs] == ["a"]


def test_nothing_that_runs_says_why(viewer: Client) -> None:
    """Nobody tells, or nothing runs for long."""
    assert "No worker tells what it runs." in shown(viewer)

    node("celery@w1")

    page = shown(viewer)
    assert "Nothing has run for long." in page
    assert "<table" not in page


def test_a_worker_that_does_not_answer_is_said_so(viewer: Client, app: Celery) -> None:
    """Within seconds, with what else to try."""
    page = shown(viewer, "running_stack", id="5f1c", node="celery@w1")

    assert "celery@w1 did not answer within two seconds." in page
    assert "unstuck stack 5f1c --timeout 30" in page


def test_a_stop_that_nobody_answers_is_in_the_audit(
    operator: Client, app: Celery
) -> None:
    """As somebody may still do it."""
    url = reverse("unstuck:running_stop", query={"id": "5f1c"})
    assert "Stop this task?" in operator.get(url).content.decode()
    assert "Give a reason" in operator.post(url, {"why": " "}).content.decode()
    assert not AuditEntry.objects.exists()

    page = operator.post(url, {"why": "it hangs"}).content.decode()

    assert "All were told; a slow one may still do it." in page
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.what, entry.target) == ("olga", "stop task", "5f1c")
    assert entry.details["stopped_on"] == []


def test_without_a_broker_nothing_is_done(operator: Client, app: Celery) -> None:
    """And both pages say so."""
    app.conf.broker_url = "redis://127.0.0.1:1/0"

    stack = shown(operator, "running_stack", id="5f1c")
    url = reverse("unstuck:running_stop", query={"id": "5f1c"})
    stop = operator.post(url, {"why": "it hangs"}).content.decode()

    assert "The broker does not answer" in stack
    assert "The broker does not answer" in stop
    assert not AuditEntry.objects.exists()
