"""Which queues are counted: those that are consumed, and those that tasks are sent to."""

from __future__ import annotations

import re

import pytest
from kombu import Queue

from tests.unit.command import unstuck
from unstuck import Celery, queues


@pytest.mark.parametrize(
    ("routes", "name"),
    [
        ({"shop.*": {"queue": "mail"}}, "mail"),
        ({"shop.charge": "mail"}, "mail"),
        ([("shop.*", {"queue": "mail"}), "shop.route"], "mail"),
        ("shop.route", ""),
        (None, ""),
    ],
)
def test_a_queue_that_routes_name_is_known(
    app: Celery, routes: object, name: str
) -> None:
    """Whether anybody consumes it here or not; what a function decides is not seen."""
    app.conf.task_routes = routes

    assert queues.names_of(app) == ["celery", *filter(None, [name]), "unstuck.dead"]


def test_a_queue_that_a_task_names_is_known(app: Celery) -> None:
    """Once."""
    app.tasks["shop.charge"].queue = "cards"

    assert queues.names_of(app) == ["celery", "cards", "unstuck.dead"]


@pytest.mark.parametrize(
    ("routes", "queue"),
    [
        (None, ""),
        ({"mail.*": "mail"}, ""),
        ({"*": "rest", "shop.charge": "cards"}, "cards"),
        ({"shop.*": {"queue": Queue("cards")}}, "cards"),
        ({re.compile(r"shop\.\w+"): {"queue": "cards"}}, "cards"),
        ([{"shop.charge": "cards"}, {"*": "rest"}], "cards"),
        ({"shop.*": {"routing_key": "shop"}}, ""),
        ([{"mail.*": "mail"}, "shop.route"], None),
        (lambda *_, **__: "cards", None),
        ([("shop.*", {"queue": "cards"})], None),
        (7, None),
    ],
)
def test_where_the_routes_lead_a_task_is_known(
    routes: object, queue: str | None
) -> None:
    """As Celery would take them: what a function decides and what is malformed is not."""
    assert queues.routed_to(routes, "shop.charge") == queue


@pytest.mark.django_db
def test_the_status_shows_a_queue_without_a_consumer(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """As far as the broker tells."""
    app.tasks["shop.charge"].queue = "cards"

    assert unstuck("status") == 0

    assert "cards" in capsys.readouterr().out
