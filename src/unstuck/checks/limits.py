"""Rules for the Celery settings that unstuck gives a safe default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from unstuck.checks.kinds import is_count, is_flag, is_number, is_seconds
from unstuck.configuration import MISSING, given
from unstuck.core import publish
from unstuck.core.limits import SOFT_SHARE
from unstuck.profile import PROFILE
from unstuck.project import spelled

Check = Callable[[Any], bool]


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


SECONDS = (
    _or_none(lambda value: is_number(value) and value > 0),
    "a number of seconds above 0, or None",
)
DELAY = (is_seconds, "a number of seconds, 0 or above")
COUNT = (_or_none(is_count), "a whole number, 0 or above, or None")
MAPPING = (lambda value: isinstance(value, Mapping), "a dict")
FLAG = (is_flag, "True or False")

HARD = "task_time_limit"
SOFT = "task_soft_time_limit"

RULES: Mapping[str, tuple[Check, str]] = {
    HARD: SECONDS,
    SOFT: SECONDS,
    "task_acks_late": FLAG,
    "task_reject_on_worker_lost": FLAG,
    "worker_prefetch_multiplier": (is_count, "a whole number, 0 or above"),
    "worker_pool": (
        lambda value: isinstance(value, (str, type)),
        "the name of a pool, or a class",
    ),
    "worker_max_tasks_per_child": COUNT,
    "task_max_retries": COUNT,
    "task_default_retry_delay": DELAY,
    "task_retry_backoff": (
        lambda value: is_flag(value) or is_seconds(value),
        "True, False or a factor of 0 or above",
    ),
    "task_retry_backoff_max": DELAY,
    "task_retry_jitter": FLAG,
    "worker_soft_shutdown_timeout": DELAY,
    "broker_connection_timeout": SECONDS,
    "broker_connection_retry_on_startup": (_or_none(is_flag), "True or False"),
    "broker_connection_max_retries": COUNT,
    "worker_enable_prefetch_count_reduction": FLAG,
    "broker_pool_acquire_timeout": SECONDS,
    "task_publish_retry_policy": MAPPING,
    "task_publish": (
        lambda value: not publish.problem_with(value),
        " or ".join(map(repr, publish.CHOICES)),
    ),
    "redis_socket_connect_timeout": SECONDS,
    "redis_socket_timeout": SECONDS,
    "result_backend_transport_options": MAPPING,
}


def wrong_types(conf: Any) -> Iterator[CheckMessage]:
    """E005: a value that the setting cannot have."""
    for row in PROFILE:
        fits, wanted = RULES[row.name]
        name, value = _first_given(conf, (*row.aliases, row.name))
        if value is not MISSING and not fits(value):
            key = spelled(conf, name)
            remedy = f"Correct it, or remove it for the default {row.value!r}."
            near = publish.meant(value) if row.name == "task_publish" else None
            yield Error(
                f"{key} = {value!r} must be {wanted}.",
                hint=f"Did you mean {near!r}? {remedy}" if near else remedy,
                obj=key,
                id="unstuck.E005",
            )


def soft_not_below_hard(conf: Any) -> Iterator[CheckMessage]:
    """E003: the project's soft limit would come no earlier than its hard limit."""
    hard, soft = _given_limits(conf)
    if hard is not MISSING and hard and soft and soft >= hard:
        soft_key = spelled(conf, SOFT)
        hard_key = spelled(conf, HARD)
        yield Error(
            f"{soft_key} = {soft!r} is not below {hard_key} = {hard!r}: tasks would "
            f"be killed before they are told.",
            hint=f"Set {soft_key} to {hard * SOFT_SHARE:g} or less, or remove it.",
            obj=soft_key,
            id="unstuck.E003",
        )


def soft_that_is_cut(conf: Any) -> Iterator[CheckMessage]:
    """W005: the project's soft limit is above the hard limit that unstuck gives."""
    hard, soft = _given_limits(conf)
    default = conf.task_time_limit
    if hard is MISSING and soft and soft > default * SOFT_SHARE:
        soft_key = spelled(conf, SOFT)
        hard_key = spelled(conf, HARD)
        yield Warning(
            f"{soft_key} = {soft!r} is cut to {default * SOFT_SHARE:g}, because "
            f"{hard_key} is not set and its default is {default!r}.",
            hint=f"Set {hard_key} to more than {soft!r} as well.",
            obj=soft_key,
            id="unstuck.W005",
        )


def _first_given(conf: Any, names: Iterable[str]) -> tuple[str, Any]:
    found = ((name, given(conf, name)) for name in names)
    return next((pair for pair in found if pair[1] is not MISSING), ("", MISSING))


def _given_limits(conf: Any) -> tuple[Any, Any]:
    hard, soft = (given(conf, name) for name in (HARD, SOFT))
    return hard, None if soft is MISSING else soft
