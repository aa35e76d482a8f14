"""Celery's and billiard's ways to say that a task ended, as outcomes.

The one place that unwraps exceptions.
"""

from __future__ import annotations

import signal
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    WorkerLostError,
)

from unstuck.core.outcome import Ending, Outcome


class Skipped(Ignore):
    """Somebody else has the lock of this task, and so it does not run."""


class PutOff(Ignore):
    """Somebody else has the lock of this task, and so it runs later."""


GONE = (WorkerLostError, SystemExit, KeyboardInterrupt)
"""The process that ran the task is no more; billiard reports an exit either way."""


def unwrapped(exc_info: Any) -> BaseException:
    """The exception of an ``ExceptionInfo``; some pools wrap it, some do not."""
    error: BaseException = exc_info.exception
    if isinstance(error, ExceptionWithTraceback):
        inner: BaseException = error.exc
        return inner
    return error


def outcome_of(exc_info: Any) -> Outcome:
    """What a pool's report of an exception says about the delivery."""
    error = unwrapped(exc_info)
    if isinstance(error, (Skipped, PutOff)):
        put_off = isinstance(error, PutOff)
        return Outcome(ending=_ending(error), cause=str(error), requeue=put_off)
    # The pool raises these itself, in main: where it did tells nothing of the task.
    from_main = isinstance(error, (*GONE, TimeLimitExceeded))
    return Outcome(
        ending=_ending(error),
        exception_type=_type_name(_raised(error)),
        exception_message=str(error),
        traceback="" if from_main else str(exc_info.traceback or ""),
        cause=cause_of_loss(error) if isinstance(error, GONE) else "",
        requeue=bool(isinstance(error, Reject) and error.requeue),
    )


def _raised(error: BaseException) -> BaseException:
    """What the task raised: of a retry, what it is tried again for."""
    cause = error.exc if isinstance(error, Retry) else None
    return cause if isinstance(cause, BaseException) else error


def outcome_of_error(ending: Ending, error: BaseException, **facts: Any) -> Outcome:
    """An ending that main saw itself, with the exception that describes it."""
    return Outcome(
        ending=ending,
        exception_type=_type_name(error),
        exception_message=str(error),
        **facts,
    )


def _ending(error: BaseException) -> Ending:
    match error:
        case Retry():
            return Ending.RETRIED
        case Reject():
            return Ending.REJECTED
        case Skipped():
            return Ending.SKIPPED
        case PutOff():
            return Ending.LOCK_BUSY
        case Ignore():
            return Ending.IGNORED
        case TimeLimitExceeded():
            return Ending.HARD_LIMIT
        case SoftTimeLimitExceeded():
            return Ending.SOFT_LIMIT
        case Terminated():
            return Ending.REVOKED
        case WorkerLostError() | SystemExit() | KeyboardInterrupt():
            return Ending.CHILD_LOST
        case _:
            return Ending.FAILED


def _type_name(error: BaseException) -> str:
    cls = type(error)
    return cls.__name__ if cls.__module__ == "builtins" else _dotted(cls)


def _dotted(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def cause_of_loss(error: BaseException) -> str:
    """Why the process ended, in words, from what billiard says of it."""
    if isinstance(error, SystemExit):
        return f"exited with code {error.code!r}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = str(error)
    for number in signal.Signals:
        if f"signal {number.value} " in text:
            return f"killed by {number.name}"
    return text
