"""How tasks did: counted by the database, percentiles from a bounded number of rows."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.unit.dashboard.conftest import Login
from tests.unit.dashboard.counted import (
    TASK,
    charts,
    minute,
    release,
    store,
    took,
)
from tests.unit.dead import archived
from unstuck import Celery
from unstuck.dashboard.queries import minutes as read
from unstuck.dashboard.queries.minutes import Total
from unstuck.dashboard.window import Window
from unstuck.models import Node, TaskRun

pytestmark = pytest.mark.django_db


def listed(client: Client, **query: str) -> str:
    return client.get(reverse("unstuck:tasks"), query).content.decode()


def one(client: Client, name: str = TASK, **query: str) -> str:
    url = reverse("unstuck:tasks_one")
    return client.get(url, {"name": name, **query}).content.decode()


def names(page: str) -> list[str]:
    return re.findall(r"tasks/one/\?name=([\w.]+)", page)


def test_tasks_are_added_up_over_nodes_and_minutes(viewer: Client) -> None:
    """Counts, the share of those in trouble, percentiles."""
    store(
        minute(succeeded=6, runtimes=took(*[1.0] * 6), waits=took(*[0.1] * 6)),
        minute(node="two@host", failed=1, hard_limit=1, runtimes=took(9.0, 9.0)),
        minute(ago=30, retried=2, runtimes=took(1.0, 1.0)),
    )

    page = " ".join(listed(viewer).split())

    for words in (
        ">10<",
        "20 %",
        "failed 1",
        "limits 1",
        "retried 2",
        "1.1 s",
        "9.5 s",
    ):
        assert words in page, words
    assert "lost" not in page.partition("<tbody>")[2].partition("</tbody>")[0]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("name", "a.rare"),
        ("runs", "b.often"),
        ("failed", "b.often"),
        ("rate", "a.rare"),
        ("limits", "c.slow"),
        ("lost", "c.slow"),
        ("retried", "c.slow"),
        ("run99", "c.slow"),
        ("wait50", "a.rare"),
        ("no such", "b.often"),
    ],
)
def test_tasks_are_sorted(viewer: Client, sort: str, first: str) -> None:
    """By anything that is shown; by the number of runs where the URL is wrong."""
    store(
        minute("b.often", succeeded=90, failed=2, runtimes=took(1), waits=took(1)),
        minute("a.rare", failed=1, runtimes=took(2), waits=took(5)),
        minute(
            "c.slow", succeeded=7, soft_limit=1, lost=1, retried=1, runtimes=took(8)
        ),
    )

    assert names(listed(viewer, sort=sort))[0] == first


def test_a_window_takes_minutes_and_hours(viewer: Client) -> None:
    """And nothing that is older."""
    store(
        minute("now.it"),
        minute("today.it", ago=180),
        minute("this.week", ago=4 * 1440, span_minutes=60, node=""),
        minute("long.ago", ago=8 * 1440, span_minutes=60, node=""),
    )

    assert names(listed(viewer, window="1h")) == ["now.it"]
    assert names(listed(viewer)) == ["now.it", "today.it"]
    assert len(names(listed(viewer, window="7d"))) == 3


def test_tasks_are_narrowed_by_name(viewer: Client) -> None:
    """A part of it, and nothing fits nothing."""
    store(minute("shop.send"), minute("shop.pay"))

    assert names(listed(viewer, task="PAY")) == ["shop.pay"]
    assert "No run ended in this time." in listed(viewer, task="nobody")


def test_more_tasks_than_fit_are_told(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do."""
    monkeypatch.setattr(read, "MOST_TASKS", 3)
    store(*(minute(f"task.{number}") for number in range(4)))

    page = listed(viewer)

    assert len(names(page)) == 3
    assert "The first 3; there are more." in page


def test_one_task_has_its_history(viewer: Client) -> None:
    """Each bucket by itself, and those of other tasks left out."""
    store(
        minute(ago=2, succeeded=3, failed=1, rss_growth_bytes=4096, runtimes=took(1)),
        minute("shop.other", ago=2, succeeded=50),
    )

    drawn = charts(one(viewer, window="1h"))

    runs = drawn["Runs"]
    assert len(runs["times"]) == 60
    assert [sum(series["values"]) for series in runs["series"]] == [4, 1]
    assert [series["label"] for series in drawn["Run time"]["series"]] == [
        "p50",
        "p95",
        "p99",
    ]
    assert (
        max(filter(None, drawn["Memory growth per run"]["series"][0]["values"])) == 1024
    )
    assert "Wait" not in drawn


def test_latest_runs_and_letters_are_those_of_the_task(
    viewer: Client, app: Celery
) -> None:
    """Without the messages of exceptions."""
    letter = archived(app)
    for ending in ("failed", "succeeded"):
        TaskRun.objects.create(
            run_id=uuid4(),
            task_id=f"id-{ending}",
            task_name=letter.task_name,
            ending=ending,
            verdict="ack",
            exception_message="secret",
            ended_at=timezone.now(),
        )

    page = one(viewer, letter.task_name)

    assert "id-failed" in page
    assert "id-succeeded" not in page
    assert reverse("unstuck:letters_one", args=[letter.pk]) in page
    assert "secret" not in page


def test_what_runs_of_a_task_leads_to_its_stack(viewer: Client) -> None:
    """Of this task alone."""
    now = timezone.now()
    ran = {"started_at": (now - timedelta(seconds=90)).isoformat()}
    Node.objects.create(
        name="celery@w1",
        state="ready",
        started_at=now,
        seen_at=now,
        running=[
            {"task_id": "r-1", "task_name": TASK, **ran},
            {"task_id": "r-2", "task_name": "shop.other", **ran},
        ],
    )

    page = one(viewer)

    assert f"{reverse('unstuck:running_stack')}?id=r-1&amp;node=celery%40w1" in page
    assert "r-2" not in page


def test_letters_are_for_those_who_may_see_them(login: Login, app: Celery) -> None:
    """And deploys likewise."""
    letter = archived(app)
    release("1.4")
    store(minute(letter.task_name, runtimes=took(1), succeeded=1))

    page = one(login("view_taskrun"), letter.task_name)

    assert reverse("unstuck:letters_one", args=[letter.pk]) not in page
    assert "1.4" not in page
    assert charts(page)["Runs"]["marks"] == []


def test_letters_and_the_search_lead_to_the_task(viewer: Client, app: Celery) -> None:
    """By its exact name, and only where there is something to see."""
    letter = archived(app)
    store(minute(letter.task_name, succeeded=1))
    place = f"{reverse('unstuck:tasks_one')}?name={letter.task_name}"

    def shows(url: str, **query: str) -> bool:
        return place in viewer.get(url, query).content.decode()

    assert shows(reverse("unstuck:search"), q=letter.task_name)
    assert not shows(reverse("unstuck:search"), q=letter.task_name[:-1])
    assert shows(reverse("unstuck:letters_one", args=[letter.pk]))


def test_a_name_that_nobody_knows_is_told(viewer: Client) -> None:
    """Also without a name, and one of odd characters."""
    for name in ("", "nobody", "\x00", "<b>", "x" * 999):
        page = one(viewer, name)
        assert "No run ended in this time." in page
        assert "<b></h1>" not in page


def test_percentiles_of_very_many_rows_are_of_asample(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts are of all of them; the sample is spread over the whole window."""
    monkeypatch.setattr(read, "MOST_ROWS", 100)
    busy = [
        minute(ago=ago, node=f"{node}@host") for ago in range(50) for node in range(20)
    ]
    for row in busy:
        row.succeeded, row.runtimes = 1, took(1.0)
    store(*busy, minute("shop.rare", succeeded=1, runtimes=took(3.0)))

    history = read.history(Window.named("1h"), TASK)
    everything = read.tasks(Window.named("1h"), "runs")

    assert (history.whole.runs, history.every) == (1000, 10)
    assert 50 <= history.whole.runtimes.total <= 200
    read_from = [
        place for place, one in enumerate(history.buckets) if one.runtimes.total
    ]
    assert read_from[-1] - read_from[0] > 40
    by_name = {total.name: total for total in everything.rows}
    assert by_name["shop.rare"].runtimes.total == 1
    assert 50 <= by_name[TASK].runtimes.total <= 200
    assert "percentiles are of one minute in" in one(viewer, window="1h")


def test_nothing_is_divided_by_nothing() -> None:
    """A task without runs."""
    assert Total().rate == 0.0
    assert Total().run(95) is None
