"""The rule table: what becomes of a message after its delivery ended.

The only place that compares a count with a limit. Every observer of an ending calls
it: the child (inside), main (beside) and whoever meets what a dead node left (outside).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from unstuck.core.backoff import doubled
from unstuck.core.delivery import Delivery
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.policy import OnBusy, Policy
from unstuck.core.verdict import Ack, Bury, Reason, Requeue, Retry, Verdict

FIRST_WAIT = timedelta(seconds=1)
"""After a rejection or the first loss, before the second look at an unknown task."""

LONGEST_WAIT = timedelta(seconds=30)

LONGEST_LOCK_WAIT = timedelta(seconds=5)
"""Between two looks at a busy lock; whoever held it may be gone long before."""


def decide(
    outcome: Outcome, delivery: Delivery, policy: Policy, now: datetime
) -> Verdict:
    """What becomes of the message of this delivery.

    There is no default branch, so that an ending without a rule fails type checking.
    """
    match outcome.ending:
        case (
            Ending.SUCCEEDED
            | Ending.IGNORED
            | Ending.REVOKED
            | Ending.EXPIRED
            | Ending.RETRIED
            | Ending.SKIPPED
        ):
            return Ack()
        case Ending.FAILED:
            return Bury(Reason.FAILED)
        case Ending.SOFT_LIMIT:
            allowed = policy.retry_on_soft_limit
            return _after_limit(allowed, Reason.SOFT_LIMIT, delivery, policy, now)
        case Ending.HARD_LIMIT:
            allowed = policy.retry_on_hard_limit
            return _after_limit(allowed, Reason.HARD_LIMIT, delivery, policy, now)
        case Ending.CHILD_LOST | Ending.NODE_LOST:
            return _after_loss(outcome, delivery, policy, now)
        case Ending.REJECTED:
            return _after_reject(outcome, policy, now)
        case Ending.LOCK_BUSY:
            return _after_busy(outcome, delivery, policy, now)
        case Ending.UNKNOWN_TASK:
            return _wait_for_deploy(delivery, policy, now)
        case Ending.UNDECODABLE:  # pragma: no branch - mypy knows that it is the last
            return Bury(Reason.UNDECODABLE)


def _after_limit(
    retry: bool, reason: Reason, delivery: Delivery, policy: Policy, now: datetime
) -> Verdict:
    used_up = policy.max_retries is not None and delivery.attempt >= policy.max_retries
    if not retry or used_up or policy.at_most_once:
        return Bury(reason)
    return Retry(now + policy.retry_delay.after(delivery.attempt, delivery.dice))


def _after_reject(outcome: Outcome, policy: Policy, now: datetime) -> Verdict:
    if outcome.requeue and not policy.at_most_once:
        return Requeue(now + FIRST_WAIT)
    return Bury(Reason.REJECTED)


def _after_loss(
    outcome: Outcome, delivery: Delivery, policy: Policy, now: datetime
) -> Verdict:
    if not outcome.started:
        return Requeue(now)
    stays_lost = (
        outcome.ending is Ending.CHILD_LOST and not policy.rerun_after_child_lost
    )
    if policy.at_most_once or stays_lost:
        return Bury(Reason.LOST)
    if not outcome.is_strike:
        return Requeue(now)
    earlier = sum(now - strike <= policy.strike_window for strike in delivery.strikes)
    if earlier + 1 >= policy.max_strikes:
        return Bury(Reason.POISON)
    if outcome.ending is Ending.NODE_LOST and delivery.one_step and earlier == 0:
        # It has waited already, until the node was known to be lost.
        return Requeue(now)
    return Requeue(now + doubled(FIRST_WAIT, earlier, LONGEST_WAIT))


def _after_busy(
    outcome: Outcome, delivery: Delivery, policy: Policy, now: datetime
) -> Verdict:
    """The process of the task is asked first; main only does what it asks for then."""
    waited = now - (delivery.waits_since or now)
    left = policy.lock_wait - waited
    if outcome.requeue or left > timedelta(0):
        wait = min(max(waited, FIRST_WAIT), LONGEST_LOCK_WAIT, max(left, FIRST_WAIT))
        # Those that found it busy together must not all come back together.
        return Requeue(now + wait * (0.5 + delivery.dice / 2))
    retries_left = policy.max_retries is None or delivery.attempt < policy.max_retries
    match policy.on_busy:
        case OnBusy.SKIP:
            return Ack()
        case OnBusy.RETRY if retries_left:
            wait = policy.retry_delay.after(delivery.attempt, delivery.dice)
            return Retry(now + wait)
        case _:
            return Bury(Reason.FAILED)


def _wait_for_deploy(delivery: Delivery, policy: Policy, now: datetime) -> Verdict:
    waited = now - (delivery.unknown_since or now)
    if waited >= policy.unknown_task_patience:
        return Bury(Reason.UNKNOWN_TASK)
    left = policy.unknown_task_patience - waited
    return Requeue(now + min(max(waited, FIRST_WAIT), LONGEST_WAIT, left))
