"""The fleet's metrics: what they say, and who may read them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.unit.dashboard.conftest import LOOKS, Login
from tests.unit.dashboard.test_queues import counts, node, sample
from tests.unit.dead import archived
from tests.unit.metrics.scraped import Scraped
from tests.unit.recorder.seen import incident
from unstuck import Celery
from unstuck.core.verdict import Reason
from unstuck.dashboard.queries import fleet
from unstuck.dashboard.views import metrics as view
from unstuck.models import DeadLetter, Node, OutboxMessage
from unstuck.recorder import facts

pytestmark = pytest.mark.django_db

TOKEN = "0123456789abcdef0123456789abcdef"
WHERE = "/unstuck/metrics/"
MOST_QUERIES = 25


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """What another test has read is old."""
    view._KEPT.forget()
    yield
    view._KEPT.forget()


@pytest.fixture
def token(settings: Any) -> str:
    """The project has said a token."""
    settings.UNSTUCK = {"METRICS_TOKEN": TOKEN}
    return TOKEN


def ask(client: Client, authorization: str = "") -> HttpResponse:
    headers = {"Authorization": authorization} if authorization else {}
    return client.get(WHERE, headers=headers)  # type: ignore[return-value]


def scrape(client: Client) -> Scraped:
    response = ask(client, f"Bearer {TOKEN}")
    assert response.status_code == 200, response.content
    return Scraped(response.content.decode())


def test_its_address() -> None:
    """Beside the dashboard's."""
    assert reverse("unstuck:metrics") == WHERE


# Who may read.


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN} ", 200),
        (f"Bearer {TOKEN[:-1]}", 403),
        (f"Bearer {TOKEN}0", 403),
        ("Bearer ", 403),
        ("Bearer ééé", 403),
        (f"Basic {TOKEN}", 403),
        (TOKEN, 403),
        ("", 403),
    ],
)
def test_the_token_opens(
    client: Client, app: Celery, token: str, authorization: str, status: int
) -> None:
    """It alone, and all of it."""
    assert ask(client, authorization).status_code == status


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer None", "Bearer x"])
def test_without_a_token_none_opens(client: Client, authorization: str) -> None:
    """Closed as long as the project says nothing, with what to do."""
    response = ask(client, authorization)

    assert response.status_code == 403
    assert b"UNSTUCK['METRICS_TOKEN']" in response.content


@pytest.mark.parametrize(
    ("permissions", "is_staff", "status"),
    [
        (("view_node",), True, 200),
        (LOOKS, True, 200),
        (LOOKS, False, 403),
        (("view_deadletter", "operate", "view_payload"), True, 403),
        ((), True, 403),
    ],
)
def test_a_person_needs_the_permission(
    login: Login,
    app: Celery,
    permissions: tuple[str, ...],
    is_staff: bool,
    status: int,
) -> None:
    """To look at it in a browser, as at the workers."""
    assert ask(login(*permissions, is_staff=is_staff)).status_code == status


def test_a_wrong_token_is_not_mended_by_a_login(viewer: Client, token: str) -> None:
    """Who sends one means it."""
    assert ask(viewer, "Bearer wrong").status_code == 403


def test_a_policy_of_the_project_decides(
    client: Client, app: Celery, settings: Any
) -> None:
    """Where there is no token."""
    settings.UNSTUCK = {
        "DASHBOARD_POLICY": "tests.unit.dashboard.test_metrics.allow_all"
    }
    assert ask(client).status_code == 200


def allow_all(request: Any, permission: str) -> bool:
    """A policy of somebody who trusts the network."""
    return permission == "unstuck.view_node"


@pytest.mark.parametrize("verb", ["post", "put", "patch", "delete"])
def test_it_is_only_read(client: Client, token: str, verb: str) -> None:
    """No verb does anything."""
    response = getattr(client, verb)(
        WHERE, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert response.status_code == 405


def test_no_answer_is_kept_by_others(client: Client, app: Celery, token: str) -> None:
    """By no proxy, opened or closed."""
    for authorization in ("", f"Bearer {TOKEN}"):
        response = ask(client, authorization)
        assert response["Cache-Control"] == "no-store, private"
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


# What it says.


def test_an_empty_fleet(client: Client, app: Celery, token: str) -> None:
    """Zeros, and all parts are read."""
    seen = scrape(client)

    parts = {one.labels["part"]: one.value for one in seen.found("unstuck_fleet_read")}
    assert set(parts.values()) == {1}
    assert len(parts) == 6
    assert seen.total("unstuck_fleet_nodes") == seen.total("unstuck_fleet_letters") == 0
    assert seen.total("unstuck_fleet_led") == 0
    assert seen.found("unstuck_fleet_queue_waiting") == []


def test_nodes_queues_and_letters(client: Client, app: Celery, token: str) -> None:
    """As on the dashboard."""
    counts("celery@w1")
    node("celery@w1", "mail")
    node("celery@w2", "mail", "sms", seen=600)
    node("celery@w3", "mail", state="gone")
    Node.objects.update(concurrency=4, facts_lag_seconds=2.5)
    sample("mail", waiting=12, oldest_seconds=94.5, reserved=3, consumers=1)
    sample("unstuck.dead", waiting=5, consumers=1)
    for reason in (Reason.FAILED, Reason.FAILED, Reason.POISON):
        archived(app, reason=reason)
    DeadLetter.objects.filter(reason="poison").update(replayed_at=timezone.now())
    facts.store([incident(kind="letters_waiting"), incident(kind="stall")])

    seen = scrape(client)

    nodes = {
        one.labels["state"]: one.value for one in seen.found("unstuck_fleet_nodes")
    }
    assert nodes == {"starting": 0, "ready": 1, "stopping": 0, "lost": 1}
    assert seen.total("unstuck_fleet_slots") == 4
    assert seen.total("unstuck_fleet_recorder_lag_seconds") == 2.5
    assert seen.total("unstuck_fleet_led") == 1
    mail = {"queue": "mail"}
    assert seen.total("unstuck_fleet_queue_waiting", **mail) == 12
    assert seen.total("unstuck_fleet_queue_oldest_seconds", **mail) == 94.5
    assert seen.total("unstuck_fleet_queue_nodes", **mail) == 1
    assert seen.total("unstuck_fleet_queue_nodes", queue="sms") == 0
    # Of one that was not counted, only that is known.
    assert seen.found("unstuck_fleet_queue_waiting", queue="sms") == []
    assert seen.found("unstuck_fleet_queue_nodes", queue="unstuck.dead") == []
    assert seen.total("unstuck_fleet_letters", reason="failed") == 2
    assert seen.total("unstuck_fleet_letters", reason="poison") == 0
    assert seen.total("unstuck_fleet_incidents_open", kind="letters_waiting") == 1


def test_what_runs_too_long_and_what_is_not_sent(
    client: Client, app: Celery, token: str
) -> None:
    """Both should alarm somebody."""
    node("celery@w1", "mail")
    now = timezone.now()
    running = [
        {
            "task_id": f"id{seconds}",
            "task_name": "send",
            "started_at": (now - timedelta(seconds=seconds)).isoformat(),
            "soft": 60,
            "hard": 90,
        }
        for seconds in (5, 70, 500)
    ]
    Node.objects.update(running=running)
    OutboxMessage.objects.create(
        message_id="0c2e3b0e-6b7a-5d0e-9a55-0f3b1d1f9a11",
        written_at=now,
        due_at=now - timedelta(minutes=5),
        body=b"",
    )

    seen = scrape(client)

    levels = {
        one.labels["level"]: one.value for one in seen.found("unstuck_fleet_long_runs")
    }
    assert levels == {"fine": 1, "late": 1, "over": 1}
    assert seen.total("unstuck_fleet_outbox_overdue") == 1


def test_every_family_is_told(client: Client, app: Celery, token: str) -> None:
    """With its type and its help."""
    read = {family.name: family for family in scrape(client).families}
    assert list(read) == [family.name for family in fleet.FAMILIES]


def test_the_database_is_asked_little_and_now_and_then(
    client: Client, app: Celery, token: str
) -> None:
    """However much there is, and however many ask."""
    for number in range(30):
        node(f"celery@w{number}", "mail", f"q{number}")
        sample(f"q{number}", waiting=1)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        first = ask(client, f"Bearer {TOKEN}").content
    assert len(asked) <= MOST_QUERIES

    node("celery@late", "mail")
    with CaptureQueriesContext(connection) as asked:
        assert ask(client, f"Bearer {TOKEN}").content == first
    assert len(asked) == 0


def test_a_wrong_setting_keeps_it_closed(client: Client, settings: Any) -> None:
    """With a word where to look."""
    settings.UNSTUCK = {"METRICS_TOKEN": "short"}

    response = ask(client, "Bearer short")

    assert response.status_code == 503
    assert b"manage.py check" in response.content
