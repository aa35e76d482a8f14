"""A task that says ``lock=``: its body runs while that lock is held, or not now."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn

from celery import states
from celery.exceptions import TaskRevokedError

from unstuck.core.backoff import RetryDelay
from unstuck.core.clock import system_clock
from unstuck.core.decide import decide
from unstuck.core.delivery import Delivery
from unstuck.core.errors import LockBusy, LocksUnreachable
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.policy import OnBusy, Policy
from unstuck.core.verdict import Ack, Bury, Requeue, Retry
from unstuck.fields import Fields
from unstuck.locks import keeper, taking
from unstuck.locks.backend import Owner
from unstuck.locks.holding import Holding
from unstuck.locks.lock import HeldLock
from unstuck.locks.owner import new_owner
from unstuck.pool.leases import Announcer
from unstuck.worker import notes
from unstuck.worker.lock_options import WAIT_SECONDS, LockOptions
from unstuck.worker.outcomes import PutOff, Skipped
from unstuck.worker.policy import policy_of

logger = logging.getLogger(__name__)

FIRST_STAY, LATER_STAY = 1.0, 0.25
"""Seconds that a task waits in its process when it comes for the first time, and when it
comes again; after that others may have that process."""

DEADLOCK_PAUSE = timedelta(seconds=1)
"""Nobody is in such a hurry; and the result store may hear of a retry that comes at once
only after it has heard of its success, and would keep the former."""

DEADLOCK_DELAY = RetryDelay(
    initial=timedelta(seconds=2),
    doubles=True,
    maximum=timedelta(seconds=60),
    jitter=True,
)
"""After that. Those that have met once must not meet again."""


def after_deadlock(attempt: int, dice: float) -> float:
    """How many seconds later a task is retried that was part of a deadlock."""
    return (DEADLOCK_PAUSE + DEADLOCK_DELAY.after(attempt, dice)).total_seconds()


def owner_of(task: Any) -> Owner:
    """Whose the locks are that this run takes. No two runs have the same owner."""
    request = task.request
    return new_owner(
        node=request.hostname or "", task_id=request.id or "", task_name=task.name
    )


def is_kept_by_main() -> bool:
    """Whether main keeps the leases of this process, for as long as it lives."""
    return isinstance(keeper.current(), Announcer)


def run(
    task: Any, options: LockOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run the body with the lock held.

    Raises what the body raises, ``LockLost`` if it was lost meanwhile, and if it cannot be
    had what says so to Celery.
    """
    held = _take(task, options, options.name_for(args, kwargs))
    task.request.lock = HeldLock(held)
    try:
        result = task.run(*args, **kwargs)
    except BaseException as error:
        taking.give_back([held], error)
        raise
    try:
        taking.give_back([held], None)
    except LocksUnreachable as error:
        # It is done, and nobody can say that it was not alone.
        logger.warning(
            "A lock is released by its lease: %(fields)s",
            Fields(lock=held.claim.name, error=error),
        )
    return result


def _take(task: Any, options: LockOptions, name: str) -> Holding:
    came_before = _delivery(task).waits_since is not None
    stay = min(LATER_STAY if came_before else FIRST_STAY, options.wait.total_seconds())
    try:
        return taking.take(name, wait=stay, lease=options.lease)
    except (LockBusy, LocksUnreachable) as error:
        _end_without_it(task, error)


def _end_without_it(task: Any, error: LockBusy | LocksUnreachable) -> NoReturn:
    policy = _policy(task, error)
    if task.request.is_eager:
        if policy.on_busy is OnBusy.SKIP:
            raise _skipped(task, error)
        raise error
    now = system_clock()
    outcome = Outcome(ending=Ending.LOCK_BUSY)
    verdict = decide(outcome, _delivery(task), policy, now)
    match verdict:
        case Ack():
            raise _skipped(task, error)
        case Requeue():
            raise PutOff(str(error)) from error
        case Retry(at):
            wait = (at - now).total_seconds()
            raise task.retry(exc=error, countdown=wait)
        case Bury():
            if isinstance(error, tuple(getattr(task, "autoretry_for", ()))):
                raise task.retry(exc=error)
            raise error


def _delivery(task: Any) -> Delivery:
    return notes.delivery_from(vars(task.request), "")


def _policy(task: Any, error: LockBusy | LocksUnreachable) -> Policy:
    """What is allowed to it, if another task does the work meanwhile.

    Nobody does when nobody knows who has the lock, or when it is of an earlier run of this
    very message: that one is dead, or about to let go. Then it waits.
    """
    policy = policy_of(task)
    if isinstance(error, LockBusy) and error.holder.task_id != task.request.id:
        return policy
    patience = timedelta(seconds=WAIT_SECONDS)
    return replace(policy, on_busy=OnBusy.WAIT, lock_wait=patience)


def _skipped(task: Any, error: LockBusy | LocksUnreachable) -> Skipped:
    """Say that it does not run to the log, and to whoever waits for its result."""
    request = task.request
    logger.info(
        "Task %(task)s is skipped: %(fields)s",
        Fields(
            task_id=request.id, task_name=task.name, lock=error.name, why=str(error)
        ),
    )
    if not request.is_eager:
        ignored = request.ignore_result
        ignored = task.ignore_result if ignored is None else ignored
        # Ends the wait for its result, and fails what was to come after it in a chain
        # or a chord, as it does for what was revoked.
        task.backend.mark_as_failure(
            request.id,
            TaskRevokedError(f"skipped: {error}"),
            request=request,
            store_result=not ignored,
            call_errbacks=False,
            state=states.REVOKED,
        )
    return Skipped(str(error))
