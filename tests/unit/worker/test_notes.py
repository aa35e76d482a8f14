"""What we write on a message, and read from it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.core.decide import decide
from unstuck.core.delivery import Delivery
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.policy import Policy
from unstuck.core.verdict import Bury, Reason
from unstuck.letters.message import SENT
from unstuck.worker.notes import HEADER, after, delivery_from, sent_at

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOST = Outcome(ending=Ending.NODE_LOST)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def handed_over(before: Delivery, outcome: Outcome, now: datetime) -> Delivery:
    """The next delivery of a message that is queued again, over real JSON."""
    headers = {"id": before.task_id, "retries": before.attempt}
    headers.update(json.loads(json.dumps(after(before, outcome, now, 100))))
    return delivery_from(headers, before.queue)


def first(**headers: Any) -> Delivery:
    """The first delivery of a message with these headers."""
    return delivery_from({"id": "1", "task": "shop.send", **headers}, "celery")


def test_a_fresh_message_has_no_history() -> None:
    """Only what Celery wrote on it."""
    delivery = first(retries=2)

    assert (delivery.task_id, delivery.task_name) == ("1", "shop.send")
    assert (delivery.queue, delivery.attempt) == ("celery", 2)
    assert (delivery.strikes, delivery.unknown_since) == ((), None)
    assert 0 <= delivery.dice < 1


def test_strikes_travel_with_the_message() -> None:
    """Each loss adds the instant of it, oldest first."""
    once = handed_over(first(), LOST, NOW)
    twice = handed_over(once, LOST, NOW + timedelta(hours=1))

    assert twice.strikes == (NOW, NOW + timedelta(hours=1))
    assert twice.deliveries == 3


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(ending=Ending.NODE_LOST, deliberate=True),
        Outcome(ending=Ending.CHILD_LOST, started=False),
        Outcome(ending=Ending.REJECTED, requeue=True),
    ],
)
def test_what_is_no_strike_adds_none(outcome: Outcome) -> None:
    """But keeps those that there are."""
    struck = handed_over(first(), LOST, NOW)

    assert handed_over(struck, outcome, NOW).strikes == (NOW,)


def test_an_unknown_task_keeps_the_instant_it_was_first_seen() -> None:
    """However many nodes look at it."""
    unknown = Outcome(ending=Ending.UNKNOWN_TASK)

    once = handed_over(first(), unknown, NOW)
    twice = handed_over(once, unknown, NOW + timedelta(minutes=1))

    assert once.unknown_since == twice.unknown_since == NOW


def test_a_message_says_since_when_it_waits_for_a_lock() -> None:
    """However often it is put off. After a loss it begins anew."""
    busy = Outcome(ending=Ending.LOCK_BUSY, requeue=True)

    once = handed_over(first(), busy, NOW)
    twice = handed_over(once, busy, NOW + timedelta(minutes=1))

    assert once.waits_since == twice.waits_since == NOW
    assert (twice.strikes, twice.deliveries) == ((), 1)
    assert handed_over(twice, LOST, NOW).waits_since is None


def test_a_task_that_is_known_again_is_forgiven() -> None:
    """The next time it is unknown, patience begins anew."""
    unknown = handed_over(first(), Outcome(ending=Ending.UNKNOWN_TASK), NOW)

    assert handed_over(unknown, LOST, NOW).unknown_since is None


@given(st.dictionaries(st.sampled_from(["id", "task", "retries", HEADER]), junk), junk)
def test_headers_from_outside_never_stop_a_worker(
    headers: dict[str, Any], strikes: Any
) -> None:
    """What is not as it should be counts as not there."""
    delivery_from(headers, "celery")
    notes = {"strikes": strikes, "unknown_since": strikes, "waits_since": strikes}

    delivery = delivery_from({HEADER: notes}, "celery")

    assert all(strike.tzinfo is UTC for strike in delivery.strikes)


@pytest.mark.parametrize(
    "max_strikes",
    [
        1,
        3,
        50,
        pytest.param(
            60,
        ),
    ],
)
def test_a_message_that_only_kills_is_poison_in_the_end(max_strikes: int) -> None:
    """Over as many hand-overs as MAX_STRIKES says, and no more."""
    policy = Policy(max_strikes=max_strikes)
    delivery = first()
    verdicts = []

    for _ in range(max_strikes):
        verdicts.append(decide(LOST, delivery, policy, NOW))
        delivery = handed_over(delivery, LOST, NOW)

    assert verdicts[-1] == Bury(Reason.POISON)
    assert not any(isinstance(verdict, Bury) for verdict in verdicts[:-1])


@pytest.mark.parametrize(
    ("headers", "at"),
    [
        ({SENT: 1.5e9}, 1.5e9),
        ({SENT: 1_500_000_000}, 1_500_000_000),
        ({}, None),
        (None, None),
        *(
            ({SENT: odd}, None)
            for odd in (None, "1.5e9", True, [], -1, 0, 2**40, math.nan, math.inf)
        ),
    ],
)
def test_when_a_message_was_sent_is_what_its_header_says(headers: Any, at: Any) -> None:
    """If that is an instant at all: it comes from outside."""
    assert sent_at(headers) == at
