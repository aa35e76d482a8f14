"""Celery's and billiard's ways to say how a task ended."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeLimitExceeded
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    WorkerLostError,
)

from unstuck.core.outcome import Ending
from unstuck.worker.outcomes import (
    PutOff,
    Skipped,
    cause_of_loss,
    outcome_of,
    unwrapped,
)


def info_of(error: BaseException) -> Any:
    """What a pool reports when a task raises this."""
    try:
        raise error
    except BaseException:
        return ExceptionInfo()


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (LookupError("x"), Ending.FAILED),
        (TimeoutError(), Ending.FAILED),
        (GeneratorExit(), Ending.FAILED),
        (Retry("again"), Ending.RETRIED),
        (Reject("no"), Ending.REJECTED),
        (Ignore(), Ending.IGNORED),
        (Skipped("held by x"), Ending.SKIPPED),
        (PutOff("held by x"), Ending.LOCK_BUSY),
        (SoftTimeLimitExceeded(270), Ending.SOFT_LIMIT),
        (TimeLimitExceeded(300), Ending.HARD_LIMIT),
        (Terminated(15), Ending.REVOKED),
        (WorkerLostError("gone"), Ending.CHILD_LOST),
        (SystemExit(1), Ending.CHILD_LOST),
        (KeyboardInterrupt(), Ending.CHILD_LOST),
    ],
)
def test_each_exception_is_one_ending(error: BaseException, ending: Ending) -> None:
    """Wrapped for the way between two processes, or not."""
    assert outcome_of(info_of(error)).ending is ending


@pytest.mark.parametrize(("error", "requeue"), [(Skipped, False), (PutOff, True)])
def test_a_busy_lock_is_a_cause_and_no_error(error: Any, requeue: bool) -> None:
    """It says who has it, also after the way between two processes."""
    outcome = outcome_of(pickle.loads(pickle.dumps(info_of(error("held by x")))))

    assert (outcome.cause, outcome.requeue) == ("held by x", requeue)
    assert outcome.exception_type == outcome.traceback == ""


def test_an_exception_that_crossed_a_pipe_is_unwrapped() -> None:
    """billiard wraps it with its traceback when it is pickled."""
    crossed = pickle.loads(pickle.dumps(info_of(LookupError("x"))))

    assert isinstance(unwrapped(crossed), LookupError)
    assert outcome_of(crossed).exception_type == "LookupError"


def test_a_failure_tells_what_and_where() -> None:
    """Type, message and traceback; dotted unless the type is Python's own."""
    outcome = outcome_of(info_of(LookupError("nowhere")))
    dotted = outcome_of(info_of(SoftTimeLimitExceeded(270)))

    assert (outcome.exception_type, outcome.exception_message) == (
        "LookupError",
        "nowhere",
    )
    assert "in info_of" in outcome.traceback
    assert outcome.cause == ""
    assert dotted.exception_type == "billiard.exceptions.SoftTimeLimitExceeded"


@pytest.mark.parametrize("error", [TimeLimitExceeded(300), WorkerLostError("gone")])
def test_where_main_noticed_an_ending_tells_nothing_of_the_task(
    error: Exception,
) -> None:
    """No traceback rather than one of the pool."""
    assert outcome_of(info_of(error)).traceback == ""


@pytest.mark.parametrize("requeue", [True, False])
def test_a_reject_says_whether_to_queue_again(requeue: bool) -> None:
    """`raise Reject(requeue=…)`."""
    assert outcome_of(info_of(Reject("x", requeue=requeue))).requeue is requeue


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 3."),
            "killed by SIGKILL",
        ),
        (
            WorkerLostError("Worker exited prematurely: signal 11 (SIGSEGV) Job: 3."),
            "killed by SIGSEGV",
        ),
        (
            WorkerLostError("Worker exited prematurely: exitcode 3 Job: 0."),
            "Worker exited prematurely: exitcode 3 Job: 0.",
        ),
        (SystemExit(7), "exited with code 7"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_loss_has_a_cause_in_words(error: BaseException, cause: str) -> None:
    """What an operator wants to know first."""
    assert cause_of_loss(error) == outcome_of(info_of(error)).cause == cause
