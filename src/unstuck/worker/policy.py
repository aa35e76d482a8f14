"""The limits and the policy of one task, from its options and the settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from unstuck import conf
from unstuck.configuration import MISSING, given
from unstuck.core.backoff import RetryDelay
from unstuck.core.errors import SettingsError
from unstuck.core.limits import Limits, in_force
from unstuck.core.policy import OnBusy, Policy
from unstuck.core.settings import Settings
from unstuck.profile import PROFILE

SOFT_DEFAULT = next(row.value for row in PROFILE if row.name == "task_soft_time_limit")


def limits_of(task: Any, app: Any, call: Limits = Limits()) -> Limits:
    """The limits in force for a call of this task.

    ``call`` is what the call itself says. Where nobody but us says a soft limit, it
    follows the hard one: a task with an hour gets 54 minutes, not our 270 seconds.
    """
    soft = given(app.conf, "task_soft_time_limit")
    project = Limits(
        hard=seconds_or_none(app.conf.task_time_limit, "task_time_limit"),
        soft=None if soft is MISSING else seconds_or_none(soft, "task_soft_time_limit"),
    )
    limits = in_force(call, task.own_limits(), project)
    if limits.soft is None and soft is MISSING:
        return in_force(limits, Limits(soft=limits.hard or SOFT_DEFAULT))
    return limits


def seconds_or_none(value: Any, what: str) -> float | None:
    """A limit as somebody wrote it. In a Django project one of the wrong type is none.

    Raises ``SettingsError`` elsewhere, where no check would tell.
    """
    if value is None or isinstance(value, (int, float)):
        return value
    if conf.in_django():
        # The check says so, and the worker does not start.
        return None
    raise SettingsError([f"{what} = {value!r} must be a number of seconds or None"])


def policy_of(task: Any) -> Policy:
    """What is allowed to the messages of this task."""
    settings = conf.current()
    lock = task.lock_options_if_good
    window = timedelta(hours=settings.strike_window_hours)
    return Policy(
        max_retries=task.max_retries,
        retry_delay=retry_delay_of(task),
        max_strikes=task.max_strikes or settings.max_strikes,
        strike_window=window,
        retry_on_soft_limit=_either(task.retry_on_limit, settings.retry_on_soft_limit),
        retry_on_hard_limit=_either(task.retry_on_limit, settings.retry_on_hard_limit),
        at_most_once=not task.acks_late,
        rerun_after_child_lost=bool(task.reject_on_worker_lost),
        unknown_task_patience=_patience(settings),
        lock_wait=lock.wait if lock else timedelta(0),
        on_busy=lock.on_busy if lock else OnBusy.WAIT,
    )


def policy_of_no_task() -> Policy:
    """What is allowed to a message whose task nobody here knows."""
    settings = conf.current()
    return Policy(unknown_task_patience=_patience(settings))


def retry_delay_of(task: Any) -> RetryDelay:
    """How long a retry of this task waits.

    A ``retry_backoff`` of the task's own has Celery's meaning: the first delay in
    seconds, doubled each time, at most ``retry_backoff_max`` (600), with ``retry_jitter``.
    The setting's doubles the retry delay instead.
    """
    said, settings = task.said, task.app.conf
    own = said.get("retry_backoff")
    if own:
        return RetryDelay(
            initial=timedelta(seconds=max(1.0, float(own))),
            doubles=True,
            maximum=timedelta(seconds=said.get("retry_backoff_max", 600)),
            jitter=said.get("retry_jitter", True),
        )
    factor = float(settings.task_retry_backoff if own is None else 0)
    longest = said.get("retry_backoff_max", settings.task_retry_backoff_max)
    return RetryDelay(
        initial=timedelta(seconds=task.default_retry_delay) * (factor or 1),
        doubles=bool(factor),
        maximum=timedelta(seconds=longest),
        jitter=said.get("retry_jitter", settings.task_retry_jitter),
    )


def _either(own: bool | None, general: bool) -> bool:
    return general if own is None else own


def _patience(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.unknown_task_patience_seconds)
