"""Calls of which the first keeps others out until it has ended: ``lock_from="publish"``.

Beside the lock that is held while the task runs there is one for the time from its call
to its end. Its owner is the id of the task, so whoever has that message may go on with it
or end it; that two runs of one message do not overlap is for the other lock.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from celery.exceptions import Reject, Retry
from celery.utils import uuid
from celery.utils.time import maybe_make_aware
from kombu.exceptions import OperationalError

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.core.errors import LockBusy, LockError, NotAllSent
from unstuck.core.policy import OnBusy
from unstuck.fields import Fields
from unstuck.locks import backends, terms
from unstuck.locks.backend import Busy, Claim, Owner, Taken
from unstuck.locks.words import Holder, named
from unstuck.worker.lock_options import LockOptions
from unstuck.worker.outcomes import PutOff

logger = logging.getLogger(__name__)

QUEUED_SECONDS = 3600
"""For how long a call keeps others out from when it may run; then it counts as lost."""

SPARE_SECONDS = 60
"""Beyond its last moment; and for a transaction to come to its end."""

PARTS = ("chain", "chord", "group_id", "parent_id", "root_id", "retries")
"""Options of what goes on with something that was called before."""


def is_lone(call: Mapping[str, Any]) -> bool:
    """Whether a call with these options is no retry and no part of a canvas.

    Those cannot be refused: what they belong to has begun. They keep others out from
    when they run.
    """
    return not any(call.get(option) for option in PARTS)


def claim_of(
    options: LockOptions, args: Sequence[Any], kwargs: Mapping[str, Any], task_id: str
) -> Claim:
    """What keeps other calls with these arguments out."""
    return Claim(
        terms.checked_name(f"unique:{options.name_for(args, kwargs)}"), task_id
    )


def publish(
    task: Any, options: LockOptions, args: Any, kwargs: Any, call: dict[str, Any]
) -> Any:
    """Publish a call, unless one like it has not ended.

    Raises ``LockBusy`` whose ``holder`` is that one; with ``on_busy="skip"`` returns its
    result.
    """
    task_id = call["task_id"] = call.get("task_id") or uuid()
    claim = claim_of(options, args or (), kwargs or {}, task_id)
    lease = _lease(task, call)
    in_transaction = _transaction_of(task, call)
    # Of what is rolled back nobody tells us.
    first = SPARE_SECONDS if in_transaction else lease
    taken = _take(task, claim, first)
    if isinstance(taken, Busy):
        if options.on_busy is OnBusy.SKIP:
            before = taken.held.owner.task_id
            logger.info(
                "Task %(task)s has not ended, and no other like it is sent",
                Fields(task_name=task.name, task_id=before),
            )
            return task.AsyncResult(before)
        raise _refused(task, claim, taken)
    if in_transaction:
        in_transaction(partial(_keep, task, claim, lease))
    try:
        return task.apply_async_as_celery(args, kwargs, **call)
    except BaseException:
        with suppress(LockError):
            backends.current().release(claim)
        raise


def publish_many(task: Any, calls: Iterable[Any], call: Mapping[str, Any]) -> list[Any]:
    """Publish each call that nothing is in the way of.

    Raises ``NotAllSent`` if one is refused or makes no name, or when the broker is away.
    """
    results: list[Any] = []
    failed: dict[int, BaseException] = {}
    for place, (args, kwargs) in enumerate(calls):
        try:
            results.append(task.apply_async(args, kwargs, **call))
        except (LockError, OperationalError, ValueError) as error:
            failed[place] = error
            results.append(None)
    if failed:
        raise NotAllSent(results, failed)
    return results


def run(
    task: Any,
    options: LockOptions,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    body: Callable[[], Any],
) -> Any:
    """Keep others out while the task runs, and until it has ended for good."""
    request = task.request
    claim = claim_of(options, args, kwargs, request.id)
    hard = task.time_limit or 0
    _keep(task, claim, max(QUEUED_SECONDS, hard + SPARE_SECONDS))
    try:
        result = body()
    except Retry as retry:
        starts = max(_seconds_until(retry.when), 0)
        _keep(task, claim, starts + QUEUED_SECONDS)
        raise
    except PutOff:
        raise
    except Exception as error:
        if not (isinstance(error, Reject) and error.requeue):
            _let_go(claim)
        raise
    _let_go(claim)
    return result


def _keep(task: Any, claim: Claim, lease: float) -> None:
    """Have it, or have it for longer. Without it others may be called, not run."""
    try:
        _take(task, claim, lease)
    except LockError as error:
        logger.warning(
            "Task %(task)s keeps no others out: %(fields)s",
            Fields(task_name=task.name, task_id=claim.token, error=error),
        )


def _let_go(claim: Claim) -> None:
    try:
        backends.current().release(claim)
    except LockError as error:
        logger.warning(
            "A lock is released by its lease: %(fields)s",
            Fields(lock=claim.name, error=error),
        )


def _take(task: Any, claim: Claim, lease: float) -> Taken | Busy:
    owner = Owner(
        token=claim.token,
        born=time.time(),
        pid=os.getpid(),
        node=socket.gethostname(),
        task_id=claim.token,
        task_name=task.name,
    )
    return backends.current().take(claim.name, owner, lease)


def _refused(task: Any, claim: Claim, busy: Busy) -> LockBusy:
    holder = Holder.of(busy.held)
    return LockBusy(
        f"{task.name} was not sent: {named(busy.held.owner)} has kept {claim.name!r} since "
        f"{holder.since:%Y-%m-%d %H:%M:%S} UTC and has not ended. "
        f"LockBusy.holder.task_id is its id.",
        name=claim.name,
        holder=holder,
    )


def _lease(task: Any, call: Mapping[str, Any]) -> float:
    """For how long a call keeps others out that nobody hears of again."""
    expires = call.get("expires", task.expires)
    if expires is not None:
        return max(_seconds_until(expires), 0) + SPARE_SECONDS
    starts = call.get("countdown") or call.get("eta")
    return max(_seconds_until(starts), 0) + QUEUED_SECONDS


def _seconds_until(when: Any) -> float:
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    if isinstance(when, datetime):
        aware: datetime = maybe_make_aware(when)
        return (aware - system_clock()).total_seconds()
    return float(when or 0)


def _transaction_of(
    task: Any, call: Mapping[str, Any]
) -> Callable[[Callable[[], None]], None] | None:
    """Where to leave what is to be done when the call is committed, if it waits for that."""
    if not task.app.waits_for_commit(task, call.get("publish")):
        return None
    if not conf.in_django():
        return None
    from django.db import connections, transaction

    alias = conf.current().database
    if not connections[alias].in_atomic_block:
        return None
    return partial(transaction.on_commit, using=alias, robust=True)
