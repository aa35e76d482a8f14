"""Who is deaf, and above all who is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from unstuck.worker.hearing import (
    DEAF_BESIDE_OTHERS_SECONDS,
    DEAF_SECONDS,
    Hearing,
    Look,
)

EVERY = 2.0


def deaf_at(
    looks: Iterable[tuple[int | None, int, bool]], seconds: float = 60
) -> float | None:
    """When it is called deaf, if ``looks`` (waiting, taken, may take) come and repeat."""
    hearing, at = Hearing(), 0.0
    for waiting, taken, may_take in itertools.cycle(looks):
        if hearing.is_deaf(
            Look(at=at, waiting=waiting, taken=taken, may_take=may_take)
        ):
            return at
        at += EVERY
        if at > seconds:
            return None
    raise AssertionError("nothing was seen")


def test_messages_wait_and_none_is_taken() -> None:
    """After half a minute, and not before."""
    at = deaf_at([(3, 7, True)])
    assert at is not None
    assert DEAF_SECONDS <= at <= DEAF_SECONDS + 2 * EVERY


def test_a_queue_that_grows_is_one_that_nobody_takes_from() -> None:
    """More and more wait."""
    assert deaf_at([(n, 7, True) for n in range(1, 100)]) is not None


def test_who_takes_messages_hears() -> None:
    """However many wait."""
    assert deaf_at([(9, n, True) for n in range(10_000)], 20_000) is None


def test_one_message_in_between_is_enough() -> None:
    """Right before half a minute is over."""
    looks = [(9, taken, True) for taken in range(1000) for _ in range(14)]
    assert deaf_at(looks, 20_000) is None


def test_who_cannot_take_is_not_deaf() -> None:
    """Busy, full, paused, not connected or stopping: at one look of many."""
    assert deaf_at([(9, 7, False)], 20_000) is None
    assert deaf_at([*[(9, 7, True)] * 14, (9, 7, False)], 20_000) is None


def test_an_empty_queue_is_not_waited_for() -> None:
    """Nor one of which the broker says nothing."""
    assert deaf_at([(0, 7, True)], 20_000) is None
    assert deaf_at([(None, 7, True)], 20_000) is None
    assert deaf_at([*[(1, 7, True)] * 14, (0, 7, True)], 20_000) is None
    assert deaf_at([*[(1, 7, True)] * 14, (None, 7, True)], 20_000) is None


def test_while_others_take_it_may_be_bad_luck() -> None:
    """The queue gets shorter now and then; for five minutes nobody is that unlucky."""
    looks = [(waiting, 7, True) for waiting in (5, 6, 4, 5)]
    at = deaf_at(looks, 1000)
    assert at is not None
    assert DEAF_BESIDE_OTHERS_SECONDS <= at <= DEAF_BESIDE_OTHERS_SECONDS + 3 * EVERY


def test_after_something_was_done_the_time_begins_anew() -> None:
    """What was done needs its time to show."""
    hearing, deaf = Hearing(), []
    for number in range(60):
        at = number * EVERY
        if hearing.is_deaf(Look(at=at, waiting=1, taken=0, may_take=True)):
            deaf.append(at)
            hearing.begin_anew()
    assert len(deaf) == 3
    assert all(b - a >= DEAF_SECONDS for a, b in itertools.pairwise(deaf))


LOOKS = st.lists(
    st.tuples(st.none() | st.integers(0, 5), st.integers(0, 2), st.booleans()),
    min_size=1,
    max_size=200,
)


@given(LOOKS)
def test_never_without_half_a_minute_of_nothing(
    looks: list[tuple[int | None, int, bool]],
) -> None:
    """Whatever was seen: at each of the last fifteen looks it could take, and did not."""
    hearing = Hearing()
    for place, (waiting, taken, may_take) in enumerate(looks):
        look = Look(at=place * EVERY, waiting=waiting, taken=taken, may_take=may_take)
        if hearing.is_deaf(look):
            last = looks[place - int(DEAF_SECONDS / EVERY) : place + 1]
            assert all(waiting and may_take for waiting, _, may_take in last)
            assert len({taken for _, taken, _ in last}) == 1
