"""A lease in a row: one has it, and the next one when it is silent or gives it up."""

from __future__ import annotations

from datetime import timedelta

import pytest

from unstuck.core.clock import system_clock
from unstuck.leases import Claim, alone
from unstuck.models import Lease

pytestmark = pytest.mark.django_db

LENGTH = timedelta(minutes=1)


def let_it_end(name: str) -> None:
    """Its time is over."""
    over = system_clock() - timedelta(seconds=1)
    Lease.objects.filter(name=name).update(until=over)


def test_one_has_it_and_keeps_it() -> None:
    """However often others ask."""
    one, other = Claim("x", LENGTH, node="one@host"), Claim("x", LENGTH)

    assert [one.take(), other.take(), one.take(), other.take()] == [
        *(True, False, True, False)
    ]
    lease = Lease.objects.get()
    assert (lease.name, lease.node) == ("x", "one@host")
    assert lease.until > system_clock() + LENGTH / 2


def test_the_next_one_has_it_when_its_time_is_over() -> None:
    """And who was silent too long is told when it asks again."""
    one, other = Claim("x", LENGTH), Claim("x", LENGTH, node="other@host")
    assert one.take()
    let_it_end("x")

    assert other.take()
    assert not one.take()
    assert str(Lease.objects.get()).startswith("x: other@host until ")


def test_who_was_silent_keeps_it_when_nobody_else_wanted_it() -> None:
    """There is no need for another one."""
    one = Claim("x", LENGTH)
    assert one.take()
    let_it_end("x")

    assert one.take()


def test_who_gives_it_up_lets_the_next_one_have_it_at_once() -> None:
    """But not of somebody else."""
    one, other, third = (Claim("x", LENGTH) for _ in range(3))
    assert one.take()
    one.give_up()
    assert other.take()

    one.give_up()

    assert not third.take()


def test_leases_have_nothing_to_do_with_each_other() -> None:
    """Each is for something else."""
    with alone("x", LENGTH) as ours, alone("y", LENGTH) as another:
        assert ours
        assert another
        with alone("x", LENGTH) as twice:
            assert not twice
    with alone("x", LENGTH) as again:
        assert again

    assert Lease.objects.count() == 2
