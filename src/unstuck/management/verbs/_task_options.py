"""What is in force for one task, and who said so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unstuck import conf, configuration
from unstuck.configuration import InForce
from unstuck.core.limits import Limits
from unstuck.core.settings import SETTINGS

TASK = "task option"

FROM_CELERY_SETTINGS = (
    ("max_retries", "task_max_retries"),
    ("default_retry_delay", "task_default_retry_delay"),
    ("acks_late", "task_acks_late"),
    ("reject_on_worker_lost", "task_reject_on_worker_lost"),
)
"""Options that a task takes over from a setting when it is bound to its app."""

RETRY_SETTINGS = (
    ("retry_backoff", "task_retry_backoff"),
    ("retry_backoff_max", "task_retry_backoff_max"),
    ("retry_jitter", "task_retry_jitter"),
)
"""Options that a task has only when it says them."""


def unstuck_settings() -> Iterator[InForce]:
    """Every key of ``UNSTUCK`` with its value and source."""
    given = conf.given()
    given = given if isinstance(given, Mapping) else {}
    for setting in SETTINGS:
        if setting.key in given:
            yield InForce(setting.key, given[setting.key], "project: UNSTUCK")
        else:
            yield InForce(setting.key, setting.default, "unstuck")


def said_by(task: Any) -> dict[str, Any]:
    """The options that the task itself gives."""
    return dict(task.said)


def in_force_for(task: Any) -> Iterator[InForce]:
    """Everything that decides about this task, with its source."""
    said = said_by(task)
    celery = {row.name: row for row in configuration.in_force(task.app.conf)}
    yield from _limits(task, celery)
    for option, setting in (*FROM_CELERY_SETTINGS, *RETRY_SETTINGS):
        if option in said:
            yield InForce(option, said[option], TASK)
        else:
            yield InForce(option, celery[setting].value, celery[setting].source)
    ours = {row.name: row for row in unstuck_settings()}
    for option, key in (
        ("max_strikes", "MAX_STRIKES"),
        ("retry_on_limit", "RETRY_ON_SOFT_LIMIT"),
        ("retry_on_limit", "RETRY_ON_HARD_LIMIT"),
    ):
        if option in said:
            yield InForce(key.lower(), said[option], TASK)
        else:
            yield InForce(key.lower(), ours[key].value, ours[key].source)
    source = TASK if "retry_on_deadlock" in said else "unstuck"
    yield InForce("retry_on_deadlock", said.get("retry_on_deadlock", False), source)
    yield from _lock(task, said)


def _lock(task: Any, said: Mapping[str, Any]) -> Iterator[InForce]:
    options = task.lock_options_if_good
    if options is None:
        return
    values = {
        "lock": options.template.text,
        "lock_wait": options.wait.total_seconds(),
        "lock_lease": options.lease,
        "on_busy": options.on_busy.value,
        "lock_from": options.lock_from.value,
    }
    for option, value in values.items():
        yield InForce(option, value, TASK if option in said else "unstuck")


def _limits(task: Any, celery: Mapping[str, InForce]) -> Iterator[InForce]:
    own: Limits = task.own_limits()
    hard, soft = celery["task_time_limit"], celery["task_soft_time_limit"]
    hard_source = TASK if own.hard else hard.source
    yield InForce("time_limit", task.time_limit, hard_source)
    if own.soft and own.soft == task.soft_time_limit:
        soft_source = TASK
    elif soft.value == task.soft_time_limit and not own.hard:
        soft_source = soft.source
    else:
        soft_source = "90 % of time_limit"
    yield InForce("soft_time_limit", task.soft_time_limit, soft_source)
