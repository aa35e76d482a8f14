"""Every safe default as one table: the setting, its value, and why.

A value of the project's own always wins, then what a task or a call says wins over
that. ``manage.py unstuck settings`` prints what is in force and where it came from.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unstuck.core.publish import AT_ONCE

POOL = "unstuck.pool:TaskPool" if sys.platform == "linux" else "prefork"

PUBLISH_SECONDS = 10
"""How long one publish may take in all before it fails."""


@dataclass(frozen=True, slots=True)
class Default:
    """One Celery setting with a safer default than Celery's."""

    name: str
    value: Any
    why: str
    aliases: tuple[str, ...] = ()
    """Other names under which a project may have set it."""


PROFILE: tuple[Default, ...] = (
    Default("task_time_limit", 300, "nothing runs for ever"),
    Default(
        "task_soft_time_limit", 270, "a task gets to know before it is killed: 90 %"
    ),
    Default(
        "task_acks_late",
        True,
        "a message goes only after its ending is stored",
        # Celery 5.6 ignores the name that most posts on the net give.
        aliases=("acks_late",),
    ),
    Default(
        "task_reject_on_worker_lost",
        True,
        "a killed process does not take its task along; bounded by MAX_STRIKES",
    ),
    Default("worker_prefetch_multiplier", 1, "no task waits behind a long one"),
    Default("worker_pool", POOL, "limits that leave a stack; needs Linux"),
    Default("worker_max_tasks_per_child", 100, "a leak ends with its child"),
    Default("task_max_retries", 3, "no retry without end"),
    Default("task_default_retry_delay", 60, "seconds; a failing service gets a break"),
    Default("task_retry_backoff", False, "the constant delay that people expect"),
    Default("task_retry_backoff_max", 3600, "seconds; a doubled delay ends here"),
    Default("task_retry_jitter", True, "doubled delays must not come in step"),
    Default(
        "worker_soft_shutdown_timeout",
        25.0,
        "seconds for running tasks; within the 30 s that containers get",
    ),
    Default("broker_connection_timeout", 4, "seconds; a dead host must not block"),
    Default(
        "broker_connection_retry_on_startup", True, "a worker waits for its broker"
    ),
    Default("broker_connection_max_retries", None, "and goes on waiting for it"),
    Default(
        "worker_enable_prefetch_count_reduction",
        False,
        "after a lost connection, what still runs is adopted and takes its place anyway",
    ),
    Default(
        "broker_pool_acquire_timeout",
        PUBLISH_SECONDS,
        "seconds; an exhausted pool must not block for ever",
    ),
    Default(
        "task_publish_retry_policy",
        {"max_retries": 1, "interval_start": 0, "interval_step": 0.2},
        "one more try on a fresh connection, all within 10 s",
    ),
    Default("task_publish", AT_ONCE, "what Celery does; on_commit uses the outbox"),
    Default(
        "redis_socket_connect_timeout", 2, "seconds; delay() asks the result store too"
    ),
    Default("redis_socket_timeout", 3, "seconds; Celery waits 120"),
    Default(
        "result_backend_transport_options",
        {"retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2}},
        "a web request does not hang with the result store",
    ),
)

WORKER_RESULT_RETRIES = {"max_retries": 20, "interval_start": 0, "interval_step": 1}
"""Celery's own: a worker sits out a restart of the result store, no request waits."""

REDIS_OPTIONS: Mapping[str, Any] = {
    "socket_connect_timeout": 2,
    "socket_timeout": 4,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
"""Without them a Redis that accepts and never answers blocks ``delay()`` for ever."""

AMQP_OPTIONS: Mapping[str, Any] = {
    "confirm_publish": True,
    "read_timeout": PUBLISH_SECONDS,
    "write_timeout": PUBLISH_SECONDS,
}
"""A message is sent when the broker says so, and what it does not say in time fails."""


def transport_options(
    broker_url: str | Sequence[str] | None,
) -> Mapping[str, Any]:
    """The socket options that bound what a broker's silence can cost.

    Of several brokers the first one tells: Celery fails over within one transport.
    """
    scheme = scheme_of(broker_url)
    if (
        scheme.startswith("unstuck")
        or "redis" in scheme
        or "sentinel" in scheme
        or "valkey" in scheme
    ):
        return REDIS_OPTIONS
    if is_amqp(broker_url):
        return AMQP_OPTIONS
    return {}


def is_amqp(broker_url: str | Sequence[str] | None) -> bool:
    """Whether the broker is reached by AMQP, as RabbitMQ is."""
    return scheme_of(broker_url) in ("amqp", "amqps", "pyamqp")


def keeps_leases(broker_url: str | Sequence[str] | None) -> bool:
    """Whether the broker is reached by our own transport, where a node has a lease."""
    return scheme_of(broker_url).startswith("unstuck")


def scheme_of(broker_url: str | Sequence[str] | None) -> str:
    """By which scheme a broker is reached; empty when that cannot be told."""
    first = broker_url or "amqp://"
    if isinstance(first, (list, tuple)):
        first = first[0]
    return first.partition("://")[0] if isinstance(first, str) else ""
