"""The limits that hold for one task."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from unstuck.core.backoff import RetryDelay


class OnBusy(StrEnum):
    """What becomes of a task whose lock somebody else has, when it has waited enough."""

    WAIT = "wait"
    SKIP = "skip"
    RETRY = "retry"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is allowed to the messages of one task, resolved and checked."""

    max_retries: int | None = 3
    """Retries after the first run; ``None`` is for ever."""

    retry_delay: RetryDelay = RetryDelay(initial=timedelta(seconds=60))

    max_strikes: int = 3
    """The loss that makes a message poison."""

    strike_window: timedelta = timedelta(hours=72)
    """Older losses are forgotten."""

    retry_on_soft_limit: bool = False
    retry_on_hard_limit: bool = False

    at_most_once: bool = False
    """``acks_late=False``: rather lost than run twice."""

    rerun_after_child_lost: bool = True
    """``reject_on_worker_lost``: a killed child's task runs again."""

    unknown_task_patience: timedelta = timedelta(minutes=10)
    """How long a message of an unknown task waits for a deploy."""

    lock_wait: timedelta = timedelta(0)
    """How long a message waits for the lock of its task."""

    on_busy: OnBusy = OnBusy.WAIT
