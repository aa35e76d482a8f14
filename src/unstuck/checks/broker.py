"""Rules for what the broker allows a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Warning

from unstuck import profile
from unstuck.checks.view import own_limits
from unstuck.configuration import MISSING, given
from unstuck.project import spelled
from unstuck.worker.task import own_tasks

HARD = "task_time_limit"

CONSUMER_TIMEOUT = 1800
"""Seconds; RabbitMQ's default, for a message that is handed out and not acknowledged."""

HINT = (
    "Set consumer_timeout in rabbitmq.conf (in milliseconds) well above it and silence "
    "this warning, or give a time limit of at most {limit} s. See docs/rabbitmq.md."
)


def messages(app: Any) -> Iterator[CheckMessage]:
    """What these rules find in the tasks and settings of an app."""
    conf = app.conf
    if profile.is_amqp(conf.broker_read_url or conf.broker_url):
        yield from longer_than_rabbitmq_waits(app)


def longer_than_rabbitmq_waits(app: Any) -> Iterator[CheckMessage]:
    """W007: a task may run for longer than RabbitMQ waits for its acknowledgement."""
    hard = given(app.conf, HARD)
    if hard is not MISSING and _is_too_long(hard):
        key = spelled(app.conf, HARD)
        yield _warning(f"{key} = {hard!r}", key)
    for task in own_tasks(app):
        own = own_limits(task).hard
        if own and _is_too_long(own):
            yield _warning(f"The task {task.name} has time_limit={own!r}", task.name)


def _is_too_long(hard: float | None) -> bool:
    return not hard or hard > CONSUMER_TIMEOUT


def _warning(subject: str, obj: str) -> Warning:
    return Warning(
        f"{subject}, but RabbitMQ by default closes the channel of a worker that has not "
        f"acknowledged a message after {CONSUMER_TIMEOUT} s: the task would run again, and "
        f"with it all that the worker had in hand.",
        hint=HINT.format(limit=CONSUMER_TIMEOUT),
        obj=obj,
        id="unstuck.W007",
    )
