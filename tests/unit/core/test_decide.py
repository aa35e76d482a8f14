"""The rule table of design.md, one test per row, and what holds for all of them."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unstuck.core.backoff import RetryDelay
from unstuck.core.decide import (
    FIRST_WAIT,
    LONGEST_LOCK_WAIT,
    LONGEST_WAIT,
    decide,
)
from unstuck.core.delivery import Delivery
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.policy import OnBusy, Policy
from unstuck.core.verdict import Ack, Bury, Reason, Requeue, Retry, Verdict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LOSSES = (Ending.CHILD_LOST, Ending.NODE_LOST)
LIMITS = (Ending.SOFT_LIMIT, Ending.HARD_LIMIT)
NOTHING_RAN = (Ending.UNKNOWN_TASK, Ending.LOCK_BUSY)
"""Of these not even the first line of the task has run."""


def delivery(**facts: object) -> Delivery:
    """A delivery of which only the named facts matter."""
    known = {"task_id": "id", "task_name": "shop.send", "queue": "celery"}
    return Delivery(**{**known, **facts})  # type: ignore[arg-type]


def verdict_on(
    ending: Ending,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    *,
    strikes: tuple[datetime, ...] = (),
    attempt: int = 0,
    unknown_since: datetime | None = None,
    waits_since: datetime | None = None,
    dice: float = 0.0,
    one_step: bool = False,
    **seen: bool,
) -> Verdict:
    """What is decided at NOW about a delivery that ended so."""
    facts = delivery(
        strikes=strikes,
        attempt=attempt,
        unknown_since=unknown_since,
        waits_since=waits_since,
        dice=dice,
        one_step=one_step,
    )
    return decide(Outcome(ending=ending, **seen), facts, policy, NOW)  # type: ignore[arg-type]


# The rows.


@pytest.mark.parametrize(
    "ending",
    [
        *(Ending.SUCCEEDED, Ending.IGNORED, Ending.REVOKED),
        *(Ending.EXPIRED, Ending.SKIPPED),
    ],
)
def test_what_is_over_is_acknowledged(ending: Ending) -> None:
    """Succeeded, ignored, revoked, expired, skipped: Ack."""
    assert verdict_on(ending) == Ack()


def test_a_retried_delivery_is_acknowledged() -> None:
    """The retry is a message of its own by then."""
    assert verdict_on(Ending.RETRIED) == Ack()


def test_a_failure_is_buried() -> None:
    """No retry was left, or the error is not retryable: the task has said so itself."""
    assert verdict_on(Ending.FAILED) == Bury(Reason.FAILED)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending.SOFT_LIMIT, Reason.SOFT_LIMIT),
        (Ending.HARD_LIMIT, Reason.HARD_LIMIT),
    ],
)
def test_a_passed_limit_is_buried(ending: Ending, reason: Reason) -> None:
    """A limit is no reason to run again unless the policy says so."""
    assert verdict_on(ending) == Bury(reason)


def test_a_soft_limit_is_retried_where_the_policy_says_so() -> None:
    """RETRY_ON_SOFT_LIMIT: the next attempt comes after the delay of retries."""
    policy = Policy(retry_on_soft_limit=True)

    assert verdict_on(Ending.SOFT_LIMIT, policy) == Retry(NOW + MINUTE)
    assert verdict_on(Ending.HARD_LIMIT, policy) == Bury(Reason.HARD_LIMIT)


def test_a_hard_limit_is_retried_where_the_policy_says_so() -> None:
    """RETRY_ON_HARD_LIMIT: the next attempt comes after the delay of retries."""
    policy = Policy(retry_on_hard_limit=True)

    assert verdict_on(Ending.HARD_LIMIT, policy) == Retry(NOW + MINUTE)
    assert verdict_on(Ending.SOFT_LIMIT, policy) == Bury(Reason.SOFT_LIMIT)


def test_a_retry_after_a_limit_waits_as_its_attempt_and_dice_say() -> None:
    """The wait is the one of the policy's RetryDelay, drawn with the delivery's dice."""
    delay = RetryDelay(initial=MINUTE, doubles=True)
    policy = Policy(retry_on_soft_limit=True, retry_delay=delay)

    verdict = verdict_on(Ending.SOFT_LIMIT, policy, attempt=2, dice=0.5)

    assert verdict == Retry(NOW + 2 * MINUTE)


def test_a_limit_is_buried_when_the_attempts_are_used_up() -> None:
    """Attempt 3 is the last of max_retries=3: the first run is attempt 0."""
    policy = Policy(retry_on_hard_limit=True, max_retries=3)

    assert verdict_on(Ending.HARD_LIMIT, policy, attempt=2) == Retry(NOW + MINUTE)
    assert verdict_on(Ending.HARD_LIMIT, policy, attempt=3) == Bury(Reason.HARD_LIMIT)


def test_without_a_maximum_a_limit_is_retried_for_ever() -> None:
    """max_retries=None is the task's own wish."""
    policy = Policy(retry_on_hard_limit=True, max_retries=None)

    assert verdict_on(Ending.HARD_LIMIT, policy, attempt=10**6) == Retry(NOW + MINUTE)


@pytest.mark.parametrize("ending", LOSSES)
def test_the_first_loss_waits_a_second(ending: Ending) -> None:
    """One lost process is an accident: its message is queued again, as the same attempt."""
    assert verdict_on(ending) == Requeue(NOW + FIRST_WAIT)


def test_the_first_loss_of_a_node_waits_no_more_where_that_is_safe() -> None:
    """It took a while to notice that the node is gone; later ones wait."""
    assert verdict_on(Ending.NODE_LOST, one_step=True) == Requeue(NOW)
    assert verdict_on(Ending.CHILD_LOST, one_step=True) == Requeue(NOW + FIRST_WAIT)
    second = verdict_on(Ending.NODE_LOST, one_step=True, strikes=(NOW - MINUTE,))
    assert second == Requeue(NOW + timedelta(seconds=2))


@pytest.mark.parametrize("ending", LOSSES)
def test_losses_wait_longer_each_time(ending: Ending) -> None:
    """Backoff: 2, 4 … seconds, at most 30."""
    policy = Policy(max_strikes=100)

    waits = [
        verdict_on(ending, policy, strikes=(NOW - MINUTE,) * earlier)
        for earlier in (1, 2, 4, 5, 98)
    ]

    seconds = (2, 4, 16, 30, 30)
    assert waits == [Requeue(NOW + timedelta(seconds=each)) for each in seconds]


@pytest.mark.parametrize("ending", LOSSES)
def test_the_third_strike_is_poison(ending: Ending) -> None:
    """MAX_STRIKES is the loss that buries."""
    strikes = (NOW - 2 * MINUTE, NOW - MINUTE)

    assert verdict_on(ending, strikes=strikes) == Bury(Reason.POISON)


def test_with_one_strike_allowed_the_first_loss_is_poison() -> None:
    """max_strikes=1: never a second run after a loss."""
    assert verdict_on(Ending.CHILD_LOST, Policy(max_strikes=1)) == Bury(Reason.POISON)


@pytest.mark.parametrize("attempt", [0, 3, 1000])
def test_strikes_are_counted_apart_from_retries(attempt: int) -> None:
    """However many attempts went before, a loss is judged by losses alone."""
    assert verdict_on(Ending.CHILD_LOST, attempt=attempt) == Requeue(NOW + FIRST_WAIT)


def test_strikes_outside_the_window_are_forgotten() -> None:
    """Only losses of the last STRIKE_WINDOW_HOURS count, the border included."""
    policy = Policy(strike_window=timedelta(hours=72))
    border = NOW - timedelta(hours=72)
    older = border - timedelta(microseconds=1)

    assert verdict_on(Ending.CHILD_LOST, policy, strikes=(older,) * 9) == Requeue(
        NOW + FIRST_WAIT
    )
    assert verdict_on(Ending.CHILD_LOST, policy, strikes=(border,) * 2) == Bury(
        Reason.POISON
    )


@pytest.mark.parametrize("ending", LOSSES)
def test_a_loss_of_an_at_most_once_task_is_buried_as_lost(ending: Ending) -> None:
    """acks_late=False: rather lost than run twice."""
    assert verdict_on(ending, Policy(at_most_once=True)) == Bury(Reason.LOST)


def test_a_killed_child_is_buried_as_lost_without_reject_on_worker_lost() -> None:
    """reject_on_worker_lost=False speaks of children only, not of nodes."""
    policy = Policy(rerun_after_child_lost=False)

    assert verdict_on(Ending.CHILD_LOST, policy) == Bury(Reason.LOST)
    assert verdict_on(Ending.NODE_LOST, policy) == Requeue(NOW + FIRST_WAIT)


@pytest.mark.parametrize("ending", LOSSES)
def test_a_deliberate_loss_is_no_strike(ending: Ending) -> None:
    """A worker that shuts down gives back at once, however many strikes there are."""
    verdict = verdict_on(ending, strikes=(NOW,) * 9, deliberate=True)

    assert verdict == Requeue(NOW)


@pytest.mark.parametrize("ending", LOSSES)
@pytest.mark.parametrize("policy", [Policy(), Policy(at_most_once=True)])
def test_what_never_started_is_queued_again(ending: Ending, policy: Policy) -> None:
    """No code of the task ran, so not even at-most-once forbids to run it."""
    verdict = verdict_on(ending, policy, strikes=(NOW,) * 9, started=False)

    assert verdict == Requeue(NOW)


def test_a_deliberate_loss_of_an_at_most_once_task_is_buried_as_lost() -> None:
    """It has started, so it may not start again, whoever stopped it."""
    policy = Policy(at_most_once=True)

    verdict = verdict_on(Ending.CHILD_LOST, policy, deliberate=True)

    assert verdict == Bury(Reason.LOST)


def test_a_reject_with_requeue_is_queued_again() -> None:
    """``raise Reject(requeue=True)``, in a second: else it would spin."""
    again = Requeue(NOW + timedelta(seconds=1))
    assert verdict_on(Ending.REJECTED, requeue=True) == again


def test_a_reject_without_requeue_is_buried() -> None:
    """``raise Reject()``."""
    assert verdict_on(Ending.REJECTED) == Bury(Reason.REJECTED)


def test_an_at_most_once_task_cannot_ask_to_be_queued_again() -> None:
    """With acks_late=False there is nothing left to put back."""
    policy = Policy(at_most_once=True)

    assert verdict_on(Ending.REJECTED, policy, requeue=True) == Bury(Reason.REJECTED)


def test_an_unknown_task_waits_for_a_deploy() -> None:
    """The first look is followed by another in a second, then less and less often."""
    first = verdict_on(Ending.UNKNOWN_TASK)
    later = verdict_on(Ending.UNKNOWN_TASK, unknown_since=NOW - timedelta(seconds=8))
    at_last = verdict_on(Ending.UNKNOWN_TASK, unknown_since=NOW - 5 * MINUTE)

    assert first == Requeue(NOW + FIRST_WAIT)
    assert later == Requeue(NOW + timedelta(seconds=8))
    assert at_last == Requeue(NOW + LONGEST_WAIT)


def test_an_unknown_task_is_buried_when_patience_ends() -> None:
    """UNKNOWN_TASK_PATIENCE after it was first seen."""
    verdict = verdict_on(Ending.UNKNOWN_TASK, unknown_since=NOW - 10 * MINUTE)

    assert verdict == Bury(Reason.UNKNOWN_TASK)


def test_without_patience_an_unknown_task_is_buried_at_once() -> None:
    """UNKNOWN_TASK_PATIENCE_SECONDS = 0."""
    policy = Policy(unknown_task_patience=timedelta(0))

    assert verdict_on(Ending.UNKNOWN_TASK, policy) == Bury(Reason.UNKNOWN_TASK)


def test_a_node_whose_clock_is_behind_does_not_wait_longer() -> None:
    """First seen "in the future" is first seen now."""
    verdict = verdict_on(Ending.UNKNOWN_TASK, unknown_since=NOW + 60 * MINUTE)

    assert verdict == Requeue(NOW + FIRST_WAIT)


def test_what_cannot_be_decoded_is_buried() -> None:
    """It will not be better next time."""
    assert verdict_on(Ending.UNDECODABLE) == Bury(Reason.UNDECODABLE)


@pytest.mark.parametrize("on_busy", list(OnBusy))
@given(
    waited=st.floats(0, 59.9),
    dice=st.floats(0, 1, exclude_max=True),
    attempt=st.integers(0, 9),
)
def test_a_busy_lock_is_waited_for(
    on_busy: OnBusy, waited: float, dice: float, attempt: int
) -> None:
    """As the same attempt, more and more slowly, for as long as the task says."""
    policy = Policy(lock_wait=MINUTE, on_busy=on_busy)

    verdict = verdict_on(
        Ending.LOCK_BUSY,
        policy,
        waits_since=NOW - timedelta(seconds=waited),
        dice=dice,
        attempt=attempt,
    )

    assert isinstance(verdict, Requeue)
    assert FIRST_WAIT / 2 <= verdict.at - NOW <= LONGEST_LOCK_WAIT
    assert verdict.at <= NOW + timedelta(seconds=max(60 - waited, 1))


@pytest.mark.parametrize(
    ("on_busy", "attempt", "expected"),
    [
        (OnBusy.WAIT, 0, Bury(Reason.FAILED)),
        (OnBusy.FAIL, 0, Bury(Reason.FAILED)),
        (OnBusy.SKIP, 0, Ack()),
        (OnBusy.RETRY, 2, Retry(NOW + MINUTE)),
        (OnBusy.RETRY, 3, Bury(Reason.FAILED)),
    ],
)
def test_after_that_the_task_says_what_becomes_of_it(
    on_busy: OnBusy, attempt: int, expected: Verdict
) -> None:
    """A retry counts as one."""
    policy = Policy(lock_wait=MINUTE, on_busy=on_busy)

    waited = verdict_on(
        Ending.LOCK_BUSY, policy, waits_since=NOW - MINUTE, attempt=attempt
    )
    at_once = verdict_on(Ending.LOCK_BUSY, Policy(on_busy=on_busy), attempt=attempt)

    assert waited == at_once == expected


def test_what_the_process_of_a_task_asks_for_is_done() -> None:
    """It has asked first, a moment before, when there was time left."""
    policy = Policy(lock_wait=MINUTE, on_busy=OnBusy.FAIL)

    verdict = verdict_on(
        Ending.LOCK_BUSY, policy, waits_since=NOW - MINUTE, requeue=True
    )

    assert verdict == Requeue(NOW + FIRST_WAIT / 2)


def test_a_lock_that_nobody_waits_for_for_ever() -> None:
    """Without retries that end, no busy lock buries a task that retries."""
    policy = Policy(on_busy=OnBusy.RETRY, max_retries=None)

    assert verdict_on(Ending.LOCK_BUSY, policy, attempt=99) == Retry(NOW + MINUTE)


# What holds whatever comes.

spans = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30))
instants = spans.map(lambda span: NOW - span)
outcomes = st.builds(
    Outcome,
    ending=st.sampled_from(Ending),
    requeue=st.booleans(),
    deliberate=st.booleans(),
    started=st.booleans(),
)
deliveries = st.builds(
    Delivery,
    task_id=st.text(),
    task_name=st.text(),
    queue=st.text(),
    attempt=st.integers(0, 1000),
    strikes=st.lists(instants, max_size=12).map(lambda many: tuple(sorted(many))),
    unknown_since=st.none() | instants,
    waits_since=st.none() | instants,
    dice=st.floats(0, 1, exclude_max=True),
)
delays = st.builds(
    RetryDelay,
    initial=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1)),
    doubles=st.booleans(),
    maximum=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1)),
    jitter=st.booleans(),
)
policies = st.builds(
    Policy,
    max_retries=st.none() | st.integers(0, 1000),
    retry_delay=delays,
    max_strikes=st.integers(1, 8),
    strike_window=spans,
    retry_on_soft_limit=st.booleans(),
    retry_on_hard_limit=st.booleans(),
    at_most_once=st.booleans(),
    rerun_after_child_lost=st.booleans(),
    unknown_task_patience=spans,
    lock_wait=spans,
    on_busy=st.sampled_from(OnBusy),
)
losses = st.builds(
    Outcome,
    ending=st.sampled_from(LOSSES),
    deliberate=st.booleans(),
    started=st.booleans(),
)


@given(outcomes, deliveries, policies)
def test_every_ending_has_exactly_one_verdict(
    outcome: Outcome, facts: Delivery, policy: Policy
) -> None:
    """Whatever happens to a message, there is a rule, and no time in the past."""
    verdict = decide(outcome, facts, policy, NOW)

    assert isinstance(verdict, (Ack, Retry, Requeue, Bury))
    if isinstance(verdict, (Retry, Requeue)):
        assert verdict.at >= NOW


@given(outcomes, deliveries, policies, st.floats(0, 1, exclude_max=True))
def test_a_verdict_depends_on_nothing_but_its_arguments(
    outcome: Outcome, facts: Delivery, policy: Policy, dice: float
) -> None:
    """Two observers of one ending agree; names do not matter, nor dice but for jitter."""
    verdict = decide(outcome, facts, policy, NOW)
    renamed = dataclasses.replace(facts, task_id="x", task_name="y", queue="z")
    rolled = dataclasses.replace(facts, dice=dice)

    assert decide(outcome, facts, policy, NOW) == verdict
    assert decide(outcome, renamed, policy, NOW) == verdict
    if not isinstance(verdict, Retry) and outcome.ending is not Ending.LOCK_BUSY:
        assert decide(outcome, rolled, policy, NOW) == verdict


@given(outcomes, deliveries, policies, st.timedeltas(timedelta(0), timedelta(days=999)))
def test_a_verdict_does_not_depend_on_the_date(
    outcome: Outcome, facts: Delivery, policy: Policy, shift: timedelta
) -> None:
    """The same story at another time ends the same."""
    moved = dataclasses.replace(
        facts,
        strikes=tuple(strike + shift for strike in facts.strikes),
        unknown_since=facts.unknown_since and facts.unknown_since + shift,
        waits_since=facts.waits_since and facts.waits_since + shift,
    )

    verdict = decide(outcome, facts, policy, NOW)
    later = decide(outcome, moved, policy, NOW + shift)

    if isinstance(verdict, (Retry, Requeue)):
        verdict = type(verdict)(verdict.at + shift)
    assert later == verdict


@given(outcomes, deliveries, policies)
def test_at_most_once_never_runs_what_has_started_again(
    outcome: Outcome, facts: Delivery, policy: Policy
) -> None:
    """acks_late=False: Ack or Bury, unless none of its code ever ran."""
    assume(outcome.started and outcome.ending not in NOTHING_RAN)
    policy = dataclasses.replace(policy, at_most_once=True)

    verdict = decide(outcome, facts, policy, NOW)

    assert isinstance(verdict, (Ack, Bury))


@given(outcomes, deliveries, policies)
def test_a_retry_is_only_for_limits_and_locks_with_attempts_left(
    outcome: Outcome, facts: Delivery, policy: Policy
) -> None:
    """Retry needs the policy's leave and an attempt that is not used up."""
    verdict = decide(outcome, facts, policy, NOW)

    if isinstance(verdict, Retry):
        busy = outcome.ending is Ending.LOCK_BUSY and policy.on_busy is OnBusy.RETRY
        assert outcome.ending in LIMITS or busy
        assert policy.max_retries is None or facts.attempt < policy.max_retries


@given(outcomes, deliveries, policies)
def test_over_is_over(outcome: Outcome, facts: Delivery, policy: Policy) -> None:
    """What is acknowledged or buried carries no instant: nothing of it comes back."""
    verdict = decide(outcome, facts, policy, NOW)

    if outcome.ending in (
        Ending.SUCCEEDED,
        Ending.FAILED,
        Ending.RETRIED,
        Ending.IGNORED,
        Ending.REVOKED,
        Ending.EXPIRED,
        Ending.UNDECODABLE,
    ):
        assert isinstance(verdict, (Ack, Bury))
    if isinstance(verdict, (Ack, Bury)):
        assert not hasattr(verdict, "at")


@given(deliveries, policies, st.sampled_from(LOSSES))
def test_a_loss_that_is_no_strike_never_buries_as_poison(
    facts: Delivery, policy: Policy, ending: Ending
) -> None:
    """A deliberate or unstarted loss goes back at once, whatever was before."""
    deliberate = Outcome(ending=ending, deliberate=True)
    unstarted = Outcome(ending=ending, started=False)

    assert decide(unstarted, facts, policy, NOW) == Requeue(NOW)
    assert decide(deliberate, facts, policy, NOW) in (Requeue(NOW), Bury(Reason.LOST))


@given(policies, st.lists(losses, max_size=60), st.data())
def test_a_message_never_runs_more_than_max_strikes_times_by_losses(
    policy: Policy, story: list[Outcome], data: st.DataObject
) -> None:
    """However its processes die, a window holds at most max_strikes of its losses."""
    now, strikes = NOW, ()
    for outcome in story:
        now += data.draw(st.timedeltas(timedelta(0), timedelta(days=2)))
        verdict = decide(outcome, delivery(strikes=strikes), policy, now)
        if outcome.is_strike:
            strikes = (*strikes, now)
        within = [each for each in strikes if now - each <= policy.strike_window]
        assert len(within) <= policy.max_strikes
        if isinstance(verdict, Bury):
            break


@given(policies)
def test_the_waits_after_losses_are_bounded_in_all(policy: Policy) -> None:
    """A message that only kills is poison after max_strikes - 1 waits of 30 s at most."""
    policy = dataclasses.replace(
        policy,
        at_most_once=False,
        rerun_after_child_lost=True,
        strike_window=timedelta(days=3650),
    )
    now, strikes = NOW, ()
    waits = []

    while True:
        outcome = Outcome(ending=Ending.CHILD_LOST)
        verdict = decide(outcome, delivery(strikes=strikes), policy, now)
        if not isinstance(verdict, Requeue):
            break
        waits.append(verdict.at - now)
        strikes, now = (*strikes, now), verdict.at

    assert verdict == Bury(Reason.POISON)
    assert len(waits) == policy.max_strikes - 1
    assert all(FIRST_WAIT <= wait <= LONGEST_WAIT for wait in waits)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=3)))
def test_the_waits_for_a_deploy_are_patience_in_all(patience: timedelta) -> None:
    """No wait is longer than 30 s, and their sum is the patience to the microsecond."""
    policy = Policy(unknown_task_patience=patience)
    now = NOW

    while True:
        facts = delivery(unknown_since=None if now == NOW else NOW)
        verdict = decide(Outcome(ending=Ending.UNKNOWN_TASK), facts, policy, now)
        if not isinstance(verdict, Requeue):
            break
        assert timedelta(0) < verdict.at - now <= min(LONGEST_WAIT, patience)
        now = verdict.at

    assert verdict == Bury(Reason.UNKNOWN_TASK)
    assert now - NOW == patience


@given(deliveries, policies)
def test_no_wait_of_ours_is_longer_than_thirty_seconds(
    facts: Delivery, policy: Policy
) -> None:
    """What waits for no fault of its task's waits at most 30 s at a time."""
    for ending in Ending:
        verdict = decide(Outcome(ending=ending), facts, policy, NOW)

        if isinstance(verdict, Requeue):
            assert verdict.at - NOW <= LONGEST_WAIT
