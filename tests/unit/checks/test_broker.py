"""Checks of what the broker allows a task."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.checks.test_tasks import app_with
from unstuck.checks.broker import messages

RABBITMQ = {"broker_url": "amqp://guest@rabbit//"}


def test_a_task_that_is_longer_than_rabbitmq_waits_is_a_warning() -> None:
    """W007 names the task, its limit and the remedy."""
    (message,) = messages(app_with(RABBITMQ, time_limit=3600))

    assert message.id == "unstuck.W007"
    assert message.obj == "shop.report"
    assert "time_limit=3600" in message.msg
    assert "consumer_timeout" in str(message.hint)


@pytest.mark.parametrize("limit", [3600, None])
def test_a_setting_likewise(limit: int | None) -> None:
    """W007 for all tasks at once; no limit is above any."""
    (message,) = messages(app_with({**RABBITMQ, "task_time_limit": limit}))

    assert message.obj == "task_time_limit"
    assert f"task_time_limit = {limit!r}" in message.msg


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (RABBITMQ, {}),
        (RABBITMQ, {"time_limit": 1800}),
        ({**RABBITMQ, "task_time_limit": 60}, {}),
        ({"broker_url": "redis://"}, {"time_limit": 3600}),
        ({"broker_url": "unstuck+redis://", "task_time_limit": 3600}, {}),
    ],
)
def test_what_is_short_enough_or_elsewhere_is_no_warning(
    settings: dict[str, Any], options: dict[str, Any]
) -> None:
    """W007 is of RabbitMQ alone, and not of our default."""
    assert list(messages(app_with(settings, **options))) == []
