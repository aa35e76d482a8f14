"""How long a retry waits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.core.backoff import RetryDelay, doubled

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
dice = st.floats(0, 1, exclude_max=True)
attempts = st.integers(0, 10**9)
spans = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365))


@given(spans, attempts, dice)
def test_a_constant_delay_is_the_same_each_time(
    initial: timedelta, attempt: int, dice: float
) -> None:
    """Neither attempts nor dice nor the maximum change it."""
    delay = RetryDelay(initial=initial, maximum=timedelta(seconds=1))

    assert delay.after(attempt, dice) == initial


def test_a_doubling_delay_starts_with_the_initial_one() -> None:
    """Attempt 0 waits the delay itself, each further one twice as long."""
    delay = RetryDelay(initial=MINUTE, doubles=True, jitter=False)

    waits = [delay.after(attempt, dice=0.5) for attempt in range(4)]

    assert waits == [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE]


@pytest.mark.parametrize("attempt", [6, 7, 63, 64, 1024, 10**9])
def test_a_doubling_delay_ends_at_its_maximum(attempt: int) -> None:
    """An hour by default, however many attempts there were."""
    delay = RetryDelay(initial=MINUTE, doubles=True, jitter=False)

    assert delay.after(attempt, dice=0.5) == HOUR


def test_an_initial_delay_above_the_maximum_is_cut_when_it_doubles() -> None:
    """The maximum holds for the first wait, too."""
    delay = RetryDelay(initial=2 * HOUR, doubles=True, jitter=False)

    assert delay.after(0, dice=0.0) == HOUR


def test_full_jitter_draws_from_nothing_to_all() -> None:
    """The dice say which share of the doubled delay is waited."""
    delay = RetryDelay(initial=MINUTE, doubles=True)

    assert delay.after(1, dice=0.0) == timedelta(0)
    assert delay.after(1, dice=0.25) == MINUTE / 2
    assert delay.after(1, dice=0.5) == MINUTE


@given(spans, spans, attempts, dice)
def test_jitter_stays_within_the_doubled_delay_and_the_maximum(
    initial: timedelta, maximum: timedelta, attempt: int, dice: float
) -> None:
    """Never negative, never above the delay without jitter, never above the maximum."""
    delay = RetryDelay(initial=initial, doubles=True, maximum=maximum)

    wait = delay.after(attempt, dice)

    assert timedelta(0) <= wait <= doubled(initial, attempt, maximum) <= maximum


@given(spans, spans, attempts)
def test_a_longer_history_never_waits_less(
    initial: timedelta, maximum: timedelta, times: int
) -> None:
    """Doubling only ever grows."""
    assert doubled(initial, times, maximum) <= doubled(initial, times + 1, maximum)
