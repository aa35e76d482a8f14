"""The page of what waits for its time: from where it can be asked, and what cannot be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.unit.dashboard.conftest import LOOKS, Login
from tests.unit.recorder.seen import run
from unstuck import Celery, planned
from unstuck.core.planned import Planned, Where, Why
from unstuck.locks.backend import Backend, Held, Owner
from unstuck.models import AuditEntry, Node
from unstuck.outbox import rows
from unstuck.planned import Live, Wanted
from unstuck.recorder import facts
from unstuck.remote import Untold

pytestmark = pytest.mark.django_db

PAGE = reverse("unstuck:planned")
SECRET = "tok4242"


def one(task_id: str = "5f1c", seconds: float = 90, **known: Any) -> Planned:
    """A run that waits on the broker."""
    due_at = timezone.now() + timedelta(seconds=seconds)
    essence = {"task_name": "shop.charge", "queue": "work", "where": Where.BROKER}
    return Planned(task_id=task_id, **{"due_at": due_at, **essence, **known})


@pytest.fixture
def told(app: Celery, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What broker and nodes say, for a test to set."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(
        planned, "_on_broker", lambda app, wanted, arguments: Live(**said)
    )
    return said


def shown(client: Client, **query: str) -> str:
    return client.get(PAGE, query).content.decode()


def test_a_retry_says_which_attempt_and_after_what(
    operator: Client, told: dict[str, Any], app: Celery
) -> None:
    """Of how many, when, where, and with what can be done."""
    app.tasks["shop.charge"].max_retries = 3
    facts.store([run("5f1c", attempt=1, exception_type="shop.PayError")])
    told["rows"] = [one(why=Why.RETRY, attempt=2, arguments=([42], {}))]

    page = shown(operator)

    assert "2 of 4" in page
    assert "shop.PayError" in page
    assert "on the broker" in page
    assert "[42]" in page
    assert f"{reverse('unstuck:planned_run')}?id=5f1c&amp;due=" in page
    assert f"{reverse('unstuck:planned_drop')}?id=5f1c&amp;due=" in page


def test_what_cannot_be_reached_is_not_offered(
    operator: Client, told: dict[str, Any]
) -> None:
    """A node drops what it holds, and cannot bring it forward; a lock does neither."""
    told["rows"] = [
        one("held", where=Where.NODE, node="celery@w1"),
        one("waits", where=Where.LOCK, why=Why.LOCK, due_at=None, lock="report:1"),
    ]

    page = shown(operator)

    assert reverse("unstuck:planned_run") not in page
    assert f"{reverse('unstuck:planned_drop')}?id=held" in page
    assert "?id=waits&amp;due" not in page
    assert "report:1" in page


def test_the_url_narrows_it(viewer: Client, told: dict[str, Any]) -> None:
    """By a part of the task's name, the queue, and why."""
    told["rows"] = [
        one("a", why=Why.RETRY, attempt=2),
        one("b", task_name="shop.mail", queue="mail"),
    ]

    by_task = shown(viewer, task="mail")
    by_why = shown(viewer, why="retry")

    assert "?id=b" in by_task
    assert "?id=a" not in by_task
    assert "?id=a" in by_why
    assert "?id=b" not in by_why
    assert "?id=" not in shown(viewer, queue="work", task="mail")


def test_a_filter_that_is_wrong_shows_nothing(
    viewer: Client, told: dict[str, Any]
) -> None:
    """And says which there are."""
    told["rows"] = [one()]

    page = shown(viewer, why="retries")

    assert "why=retries is not known. Known: eta, retry," in page
    assert "5f1c" not in page


def test_what_was_cut_is_said_in_words(viewer: Client, told: dict[str, Any]) -> None:
    """How many there are, and which of them were looked at and are shown."""
    told["rows"] = [one(f"t{number}") for number in range(planned.MOST_SHOWN + 1)]
    told["cut"] = {"work": 7_000}

    page = shown(viewer)

    assert "The next 50 of 51 that fit." in page
    assert "work has 7000 that wait for their time; only those that are due" in page


def test_of_all_it_looks_at_no_more_than_it_shows(viewer: Client, app: Celery) -> None:
    """And says how many there are; to find those that fit it looks at more."""
    for number in range(planned.MOST_SHOWN + 20):
        with transaction.atomic():
            app.tasks["shop.charge"].apply_async(
                [number], task_id=f"id-{number}", publish="on_commit", queue="work"
            )

    assert "The next 50 of 70 that fit." in shown(viewer)
    assert "The next 50 of 70 that fit." in shown(viewer, queue="work")
    assert [Wanted().most_looked_at, Wanted(queue="work").most_looked_at] == [50, 500]


@pytest.mark.parametrize(
    ("wanted", "looked_at", "total", "lacks"),
    [
        (Wanted(), 50, 7_000, False),
        (Wanted(), 49, 7_000, True),
        (Wanted(), 5, 5, False),
        (Wanted(task="a"), 500, 501, True),
        (Wanted(task="a"), 501, 501, False),
    ],
)
def test_what_was_not_looked_at_is_said_where_it_matters(
    wanted: Wanted, looked_at: int, total: int, lacks: bool
) -> None:
    """The first of all are among the first of each place."""
    assert wanted.lacks(looked_at, total) is lacks


def test_what_nobody_can_look_into_is_counted(
    viewer: Client, told: dict[str, Any]
) -> None:
    """It is not passed as nothing."""
    told["counted"] = 12

    assert "12 messages wait in RabbitMQ's delay queues" in shown(viewer)


def test_arguments_need_the_permission(
    login: Login, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not even asked for without it."""
    asked: list[bool] = []

    def on_broker(app: Any, wanted: Wanted, arguments: bool) -> Live:
        asked.append(arguments)
        return Live(rows=[one(arguments=([SECRET], {}))])

    monkeypatch.setattr(planned, "_on_broker", on_broker)

    page = shown(login(*LOOKS, "operate"))

    assert asked == [False]
    assert SECRET not in page


def test_a_lock_that_a_task_waits_for_is_shown(
    viewer: Client, app: Celery, held: Held, locks: Backend
) -> None:
    """Which lock, on which node; what is no task is not a planned run."""
    waiter = Owner(
        token="3", born=3, pid=1, node="celery@w2", task_id="w8", task_name="shop.run"
    )
    locks.take("report:42", waiter, 30, waits=True)

    page = shown(viewer)

    assert "?id=w8" in page
    assert "report:42" in page
    assert "web-1" not in page


def test_what_is_in_the_outbox_is_shown(operator: Client, app: Celery) -> None:
    """With redacted arguments for those who may see them."""
    with transaction.atomic():
        app.tasks["shop.charge"].apply_async(
            [7], {"card_token": SECRET}, task_id="o1", publish="on_commit"
        )
    assert rows.rows().count() == 1

    page = shown(operator)

    assert "?id=o1" in page
    assert "[7]" in page
    assert "[redacted]" in page
    assert SECRET not in page


def test_arguments_of_a_task_that_is_not_known_here_are_hidden(
    operator: Client, app: Celery
) -> None:
    """Its signature would say which of them are secret."""
    with transaction.atomic():
        app.send_task("shop.other", [SECRET], task_id="o2", publish="on_commit")

    page = shown(operator)

    assert "?id=o2" in page
    assert SECRET not in page


def test_a_node_that_does_not_answer_is_named(viewer: Client, app: Celery) -> None:
    """What it holds is missing, and the page says so."""
    now = timezone.now()
    Node.objects.create(name="celery@w1", state="ready", started_at=now, seen_at=now)

    page = shown(viewer)

    assert "celery@w1 did not answer within two seconds" in page
    assert "Nothing that can be listed" in page


def test_without_a_broker_the_rest_is_shown(
    operator: Client, app: Celery, held: Held
) -> None:
    """What waits in the database, and what could not be asked; no act changes anything."""
    app.conf.broker_url = "redis://127.0.0.1:1/0"

    page = shown(operator)
    url = reverse("unstuck:planned_drop", query={"id": "5f1c"})
    drop = operator.post(url, {"why": "not wanted"}).content.decode()

    assert "The broker does not answer: what waits there" in page
    assert "The broker does not answer" in drop
    assert not AuditEntry.objects.exists()


def test_an_act_needs_a_reason_and_somebody_to_do_it(
    operator: Client, app: Celery
) -> None:
    """Else nothing is done, and nothing in the audit."""
    for name in ("planned_run", "planned_drop"):
        url = reverse(f"unstuck:{name}", query={"id": "5f1c", "due": "1"})
        assert "5f1c" in operator.get(url).content.decode()
        assert "Give a reason" in operator.post(url, {"why": " "}).content.decode()
        told = operator.post(url, {"why": "now"}).content.decode()
        assert "5f1c cannot be brought forward" in told or "no node answered" in told
    assert not AuditEntry.objects.exists()


def test_the_next_is_first_and_what_nobody_can_tell_is_last() -> None:
    """Of all sources together."""
    late, soon = one("late", 900), one("soon", 5)
    never = one("never", due_at=None)

    found = planned.those(
        [Live(rows=[never, late]), Live(rows=[soon], untold=[Untold("locks")])],
        Wanted(),
    )

    assert [row.task_id for row in found.rows] == ["soon", "late", "never"]
    assert list(found.untold) == [Untold("locks")]
