"""Which limits are in force when several say something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.core.limits import SOFT_SHARE, Limits, in_force

seconds = st.none() | st.integers(1, 10**6) | st.floats(0.001, 1e6)
some_limits = st.builds(Limits, hard=seconds, soft=seconds)


def test_nobody_says_anything() -> None:
    """No limit at all."""
    assert in_force() == Limits()
    assert in_force(Limits(), Limits()) == Limits()


def test_the_nearest_wins() -> None:
    """A call over its task, a task over its project; each limit on its own."""
    call, task, project = Limits(hard=50), Limits(hard=60, soft=5), Limits(600, 500)

    assert in_force(call, task, project) == Limits(hard=50, soft=5)


@pytest.mark.parametrize(
    ("nearest_first", "limits"),
    [
        ((Limits(hard=60), Limits(300, 270)), Limits(60, 54)),
        ((Limits(hard=3600), Limits(300, 270)), Limits(3600, 270)),
        ((Limits(soft=400), Limits(300, 270)), Limits(300, 270)),
        ((Limits(60, 60),), Limits(60, 54)),
        ((Limits(60, 90),), Limits(60, 54)),
    ],
)
def test_the_soft_limit_is_at_most_nine_tenths_of_the_hard_one(
    nearest_first: tuple[Limits, ...], limits: Limits
) -> None:
    """Else a task would be killed without ever having been told."""
    assert in_force(*nearest_first) == limits


def test_one_limit_makes_no_other() -> None:
    """A hard limit alone brings no soft one, and the other way round."""
    assert in_force(Limits(hard=60)) == Limits(hard=60)
    assert in_force(Limits(soft=60)) == Limits(soft=60)


def test_zero_is_no_limit_said() -> None:
    """As Celery reads it."""
    assert in_force(Limits(0, 0), Limits(300, 200)) == Limits(300, 200)
    assert in_force(Limits(0, 0)) == Limits()


@given(st.lists(some_limits, max_size=4))
def test_limits_in_force_are_given_ones_and_in_order(many: list[Limits]) -> None:
    """Nothing is made up, and the soft limit always comes before the hard one."""
    limits = in_force(*many)

    assert limits.hard is None or limits.hard in {each.hard for each in many}
    if limits.soft is not None:
        given_soft = [each.soft for each in many if each.soft]
        assert limits.soft <= given_soft[0]
        if limits.hard is not None:
            assert limits.soft <= limits.hard * SOFT_SHARE < limits.hard


@given(st.lists(some_limits, max_size=4))
def test_limits_in_force_stay_in_force(many: list[Limits]) -> None:
    """Resolving again, by another observer, changes nothing."""
    limits = in_force(*many)

    assert in_force(limits, *many) == limits
