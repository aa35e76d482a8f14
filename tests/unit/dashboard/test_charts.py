"""Charts: what they are drawn from, on which page, and what else there is."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

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
    sample,
    store,
    took,
)
from tests.unit.dead import archived
from unstuck import Celery
from unstuck.dashboard.queries import minutes as read
from unstuck.dashboard.reading import NotRead
from unstuck.dashboard.window import Window
from unstuck.models import QueueSample
from unstuck.templatetags.unstuck_dashboard import lasting

pytestmark = pytest.mark.django_db


def test_the_same_numbers_are_in_a_table(viewer: Client) -> None:
    """For those without a script, and for a screen reader."""
    store(minute(ago=2, succeeded=3, failed=1, runtimes=took(0.25)))

    tables = _task_page(viewer).split('<table class="numbers">')[1:]

    assert "<td>4</td><td>1</td>" in tables[0]
    assert "<td>266 ms</td>" in tables[1]
    assert all(table.count('<th scope="row">') == 1 for table in tables)


@pytest.mark.parametrize("path", ["tasks", "tasks_one", "overview"])
@pytest.mark.parametrize("many", [1, 60])
def test_few_questions_are_asked_however_much_there_is(
    operator: Client, path: str, many: int, django_assert_max_num_queries: Any
) -> None:
    """Session, user and permissions counted."""
    store(*(minute(f"task.{n}", ago=n, runtimes=took(1)) for n in range(many)))
    store(*(minute(ago=n, succeeded=1, runtimes=took(1)) for n in range(many)))
    QueueSample.objects.bulk_create(
        QueueSample(
            queue=f"queue-{n}", at=timezone.now() - timedelta(minutes=n), waiting=n
        )
        for n in range(many)
    )

    with django_assert_max_num_queries(18 if path == "overview" else 14):
        response = operator.get(reverse(f"unstuck:{path}"), {"name": TASK})

    assert response.status_code == 200


@pytest.mark.parametrize("path", ["tasks", "tasks_one", "overview"])
def test_what_takes_too_long_leaves_the_rest(
    viewer: Client, app: Celery, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """It says so, and letters are shown."""
    letter = archived(app)

    def too_long(*_: Any) -> Any:
        raise NotRead("slow")

    monkeypatch.setattr(read, "history", too_long)
    monkeypatch.setattr(read, "tasks", too_long)
    query = {"name": letter.task_name}
    page = viewer.get(reverse(f"unstuck:{path}"), query).content.decode()

    assert page.count("The database took too long") == 1
    if path != "tasks":
        assert letter.task_name in page.partition("The database took too long")[2]


def test_the_overview_draws_runs_queues_and_deploys(viewer: Client) -> None:
    """The fullest queues first; a queue in which nothing is known is a gap."""
    store(minute(ago=5, succeeded=2, runtimes=took(1), waits=took(2)))
    for number in range(7):
        sample(f"queue-{number}", waiting=number, oldest=60.0 * number)
    sample("unknown", waiting=None, oldest=None)
    release("1.4")

    page = viewer.get(reverse("unstuck:overview")).content.decode()

    drawn = charts(page)
    queues = [series["label"] for series in drawn["Waiting in queues"]["series"]]
    assert queues == [f"queue-{number}" for number in (6, 5, 4, 3, 2)]
    assert (
        max(filter(None, drawn["The oldest that waits"]["series"][0]["values"])) == 360
    )
    assert {mark["label"] for mark in drawn["Runs"]["marks"]} == {"1.4"}
    assert "Release <strong>1.4</strong>" in page


def test_the_overview_draws_what_somebody_may_see(login: Login) -> None:
    """Runs are of those who may see runs, queues of those who may see nodes."""
    store(minute(succeeded=2))
    sample("queue", waiting=4, oldest=1.0)

    drawn = charts(login("view_node").get(reverse("unstuck:overview")).content.decode())

    assert set(drawn) == {"Waiting in queues", "The oldest that waits"}


def test_buckets_follow_each_other_and_end_now() -> None:
    """Whatever the clock says, and what is ahead of it is in the last."""
    for name in ("1h", "24h", "7d"):
        window = Window.named(name, 1_800_000_123.4)
        times = window.times
        assert times[-1] <= window.now < times[-1] + window.step
        assert {b - a for a, b in itertools.pairwise(times)} == {window.step}
        assert window.place(window.since) == 0
        later = datetime.fromtimestamp(
            window.now + 9999, timezone.get_current_timezone()
        )
        assert window.place(later) == len(times) - 1


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.0042, "4.2 ms"),
        (0.999, "999 ms"),
        (1, "1 s"),
        (119.6, "120 s"),
        (270, "4.5 min"),
        (5400, "90 min"),
        (86_400, "24 h"),
        (345_600, "4 d"),
    ],
)
def test_durations_are_written_for_people(seconds: float | None, written: str) -> None:
    """In the unit that says it shortest."""
    assert lasting(seconds) == written


def _task_page(client: Client) -> str:
    query = {"name": TASK, "window": "1h"}
    return client.get(reverse("unstuck:tasks_one"), query).content.decode()
