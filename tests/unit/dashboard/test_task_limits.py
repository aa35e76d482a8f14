"""Limits that a history suggests, beside those in force."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from unstuck import Celery
from unstuck.core.histogram import Histogram
from unstuck.dashboard import limits
from unstuck.dashboard.queries.minutes import Total
from unstuck.models import TaskMinute


def total(*parts: tuple[int, float], hard_limit: int = 0) -> Total:
    """So many runs of so many seconds each."""
    runtimes = Histogram()
    for runs, seconds in parts:
        for _ in range(runs):
            runtimes.add(seconds)
    return Total(runtimes=runtimes, hard_limit=hard_limit)


def test_a_limit_leaves_room_above_what_is_usual() -> None:
    """Three times the slowest in a hundred, as people write it."""
    found = limits.suggested(total((990, 1.0), (10, 30.0), hard_limit=2))

    assert found.limits is not None
    assert (found.limits.hard, found.limits.soft) == (5, 4.5)
    assert (found.runs, found.longer, found.cut) == (1000, 10, 2)


def test_too_few_runs_suggest_nothing() -> None:
    """Nor does none."""
    assert limits.suggested(total((199, 1.0))).limits is None
    assert limits.suggested(total()).limits is None
    assert limits.suggested(total((200, 1.0))).limits is not None


@pytest.mark.parametrize(
    ("seconds", "rounded"),
    [
        (0.0, 1),
        (0.004, 1),
        (1.2, 2),
        (61, 90),
        (1200, 1200),
        (1201, 1800),
        (90_001, 90_900),
    ],
)
def test_limits_are_rounded_up(seconds: float, rounded: int) -> None:
    """Never down, however long."""
    assert limits.rounded_up(seconds) == rounded


def test_limits_in_force_are_those_of_the_task(app: Celery) -> None:
    """The task's own, and the project's for the other one."""

    @app.task(name="limits.own", time_limit=50)
    def own() -> None: ...

    found = limits.in_force("limits.own")

    assert found is not None
    assert (found.hard, found.soft) == (50, 45)
    assert limits.in_force("limits.nobody") is None


@pytest.mark.django_db
def test_the_page_shows_both(viewer: Client, app: Celery) -> None:
    """Whatever the window, by the last seven days."""

    @app.task(name="limits.shown", time_limit=50)
    def shown() -> None: ...

    _store("limits.shown", 300)
    _store("limits.unknown", 3)

    page = _page(viewer, "limits.shown")
    for words in (
        "50 s",
        "45 s",
        "<b>5 s</b>",
        "of 300 runs in 7 days",
        "None of them",
    ):
        assert words in page, words
    page = _page(viewer, "limits.unknown")
    for words in ("not known here", "too few runs", "There were 3 in 7 days; 200"):
        assert words in page, words


def _store(name: str, runs: int) -> None:
    TaskMinute.objects.create(
        minute=timezone.now() - timedelta(days=3),
        span_minutes=60,
        task_name=name,
        succeeded=runs,
        runtimes=total((runs, 1.0)).runtimes.to_wire(),
    )


def _page(client: Client, name: str) -> str:
    url = reverse("unstuck:tasks_one")
    found = client.get(url, {"name": name, "window": "1h"}).content.decode()
    return " ".join(found.split())
