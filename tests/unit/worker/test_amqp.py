"""Which queues of a project are declared safely."""

from __future__ import annotations

import time
from typing import Any

import kombu
import pytest
from kombu.common import Broadcast

from unstuck import Celery
from unstuck.letters.message import SENT
from unstuck.rabbit.queues import PatientQueue, SafeQueue


def app_with(**settings: Any) -> Celery:
    """An app with these settings."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(settings)
    return app


def test_all_queues_are_declared_safely() -> None:
    """The default one, those of the settings, and those that nobody has named before."""
    default = app_with().amqp.queues
    named = app_with(task_queues=[kombu.Queue("media")]).amqp.queues
    default.select("other")

    assert isinstance(default["celery"], SafeQueue)
    assert isinstance(named["media"], SafeQueue)
    assert named["media"].exchange.name == "celery"
    assert isinstance(default["other"], SafeQueue)
    assert isinstance(default.consume_from["other"], SafeQueue)


@pytest.mark.parametrize(
    "setting", ["task_default_queue_type", "task_create_missing_queue_type"]
)
@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_nothing_is_added_where_a_project_says_what_queues_are(
    setting: str, kind: str
) -> None:
    """They are patient with what is there, and that is all."""
    app = app_with(**{setting: kind})

    assert type(app.amqp.queues["celery"]) is PatientQueue
    assert type(app.amqp.queues["other"]) is PatientQueue
    assert app.amqp.queues["other"].ours({}) == {}


def test_a_queue_of_another_kind_stays_what_it_is() -> None:
    """Its class has its own ways."""
    app = app_with(task_queues=[Broadcast("all")])

    assert type(app.amqp.queues["all"]) is Broadcast


def test_a_queue_given_to_a_call_is_declared_as_its_workers_do() -> None:
    """Not as the plain queue that it is."""
    app = app_with()
    seen = []

    class Producer(app.amqp.Producer):  # type: ignore[misc,name-defined]
        def publish(self, *args: Any, **options: Any) -> None:
            seen.extend(options["declare"])

    with app.connection_for_write() as connection:
        producer = Producer(connection)
        app.send_task("t", queue=kombu.Queue("q"), producer=producer)

    assert [type(queue) for queue in seen] == [SafeQueue]


@pytest.mark.parametrize("headers", [None, {}, {"own": 1}, {SENT: 1.0}])
def test_on_each_task_is_written_when_it_was_sent(headers: Any) -> None:
    """Anew on a retry, which Celery gives the headers of the attempt before."""
    app = app_with()
    seen: dict[str, Any] = {}

    class Producer(app.amqp.Producer):  # type: ignore[misc,name-defined]
        def publish(self, *args: Any, **options: Any) -> None:
            seen.update(options["headers"])

    before = time.time()
    with app.connection_for_write() as connection:
        app.send_task("t", headers=headers, producer=Producer(connection))

    assert before <= seen[SENT] <= time.time()
    assert seen.get("own") == (headers or {}).get("own")
    assert seen["task"] == "t"
