"""The names that there are: of settings, of task options, of options of a transport.

And which of them somebody meant who wrote another one.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

import celery
from celery.app.defaults import _TO_NEW_KEY, SETTING_KEYS

from unstuck.profile import PROFILE
from unstuck.worker.task import Task

SETTINGS = frozenset(
    {*SETTING_KEYS, *(name for row in PROFILE for name in (row.name, *row.aliases))}
)
"""The settings of Celery and of unstuck, in lower case and without a prefix."""

OLD_SETTINGS: Mapping[str, str] = _TO_NEW_KEY
"""Celery's names of before version 4, upper case, and what they are called now."""

GONE = {
    "amqp_task_result_expires": "result_expires",
    "chord_propagates": "",
    "disable_events": "worker_send_task_events",
    "force_execv": "",
    "send_task_error_emails": "",
    "task_error_whitelist": "",
    "task_result_queue": "",
}
"""Settings that Celery had and reads no more, and what took their place."""

NAMESPACES = ("task_", "worker_", "broker_", "result_", "beat_")
"""How the names begin that nobody would give to something else."""

OF_OTHERS = (
    "once",
    "singleton_",
    "redbeat_",
    "email_",
    "haystack_",
    "prometheus_",
    "db_reuse_max",
    "override_backends",
    "deprecated_settings",
)
"""Settings of packages that live in Celery's namespace, and of Celery's own code."""

SETTINGS_MEANT = {
    "task_timeout": "task_time_limit",
    "task_hard_time_limit": "task_time_limit",
    "task_soft_timeout": "task_soft_time_limit",
    "task_retries": "task_max_retries",
    "task_retry_delay": "task_default_retry_delay",
    "max_tasks_per_child": "worker_max_tasks_per_child",
    "prefetch_count": "worker_prefetch_multiplier",
}
"""What people write who remember the idea and not the name."""

TASK_OPTIONS = frozenset(
    {
        *(name for cls in (celery.Task, Task) for name in dir(cls) if name[0] != "_"),
        "autoretry_for",
        "base",
        "bind",
        "compression",
        "countdown",
        "delivery_mode",
        "dont_autoretry_for",
        "exchange",
        "immediate",
        "lazy",
        "link",
        "link_error",
        "mandatory",
        "priority",
        "pydantic",
        "pydantic_context",
        "pydantic_dump_kwargs",
        "pydantic_strict",
        "queue",
        "retry_kwargs",
        "routing_key",
        "shared",
    }
)

TASK_OPTIONS_MEANT = {
    "timeout": "time_limit",
    "soft_timeout": "soft_time_limit",
    "hard_time_limit": "time_limit",
    "retries": "max_retries",
    "retry_delay": "default_retry_delay",
    "retry_for": "autoretry_for",
    "autoretry": "autoretry_for",
    "ack_late": "acks_late",
    "late_ack": "acks_late",
}

REDIS_OPTIONS = frozenset(
    [
        "ack_emulation",
        "body_encoding",
        "client_name",
        "credential_provider",
        "deadletter_queue",
        "fanout_patterns",
        "fanout_prefix",
        "global_keyprefix",
        "health_check_interval",
        "lease_seconds",
        "master_name",
        "max_connections",
        "max_retries",
        "min_other_sentinels",
        "node",
        "polling_interval",
        "predecessors",
        "priority_steps",
        "queue_order_strategy",
        "reauth_check_interval",
        "retry_on_timeout",
        "sentinel_fanout_compat",
        "sentinel_kwargs",
        "sep",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_keepalive_options",
        "socket_timeout",
        "unacked_index_key",
        "unacked_key",
        "unacked_mutex_expire",
        "unacked_mutex_key",
        "unacked_restore_interval",
        "unacked_restore_limit",
        "unacked_restore_throttle",
        "visibility_timeout",
        "interval_max",
        "interval_start",
        "interval_step",
        "errback",
    ]
)
"""What kombu's transports for Redis, and ours, read."""

AMQP_OPTIONS = frozenset(
    [
        "authentication",
        "callback",
        "channel_max",
        "client_properties",
        "confirm_publish",
        "connect_timeout",
        "errback",
        "frame_max",
        "heartbeat",
        "host",
        "insist",
        "interval_max",
        "interval_start",
        "interval_step",
        "locale",
        "login_method",
        "login_response",
        "max_retries",
        "on_blocked",
        "on_open",
        "on_tune_ok",
        "on_unblocked",
        "password",
        "read_timeout",
        "socket_settings",
        "ssl",
        "userid",
        "virtual_host",
        "write_timeout",
    ]
)
"""What py-amqp's connection takes, and kombu when it makes one."""


def meant(
    name: str,
    names: Collection[str],
    by_idea: Mapping[str, str] | None = None,
    cutoff: float = 0.8,
) -> str:
    """Which of the names somebody meant; empty when there is no telling."""
    lowered = name.lower()
    if lowered in (by_idea or {}):
        return (by_idea or {})[lowered]
    near = difflib.get_close_matches(lowered, names, n=1, cutoff=cutoff)
    return near[0] if near else _only_one_that_ends_so(lowered, names)


def _only_one_that_ends_so(name: str, names: Iterable[str]) -> str:
    ends = [known for known in names if known.endswith(f"_{name}")]
    return ends[0] if len(ends) == 1 and len(name) >= len("queues") else ""
