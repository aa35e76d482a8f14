"""Chores: one recorder does them, each when it is due, and none stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import OperationalError, connection

from unstuck.core.clock import system_clock
from unstuck.models import Lease
from unstuck.recorder.chores import Chore, Leader, leader_now
from unstuck.recorder.duty import Duty

pytestmark = pytest.mark.django_db


class Clock:
    """Stands still until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def chore(log: list[str], name: str, every: float, **known: float) -> Chore:
    """A chore that only notes that it was done."""
    return Chore(name, every=every, work=lambda: bool(log.append(name)), **known)


def until_idle(leader: Leader) -> None:
    """Let it do all that is due."""
    while leader.work():
        pass


def end_lease() -> None:
    """As if its holder had been silent for long."""
    Lease.objects.update(until=system_clock() - timedelta(seconds=1))


def test_chores_are_done_when_they_are_due() -> None:
    """The first time at once or later, then again and again; one a turn."""
    done: list[str] = []
    clock = Clock()
    chores = [chore(done, "often", 2.0), chore(done, "late", 3600.0, first_after=3.0)]
    leader = Leader("one@host", chores, clock)
    seen = []
    for clock.now in (1000.0, 1001.0, 1002.0, 1003.0, 1004.0):
        done.clear()
        until_idle(leader)
        seen.append(list(done))

    assert seen == [["often"], [], ["often"], ["late"], ["often"]]


def test_more_to_do_is_done_at_once_and_others_come_between() -> None:
    """What is due for longest is first."""
    done: list[str] = []
    parts = [True, True, False]

    def in_parts() -> bool:
        done.append("part")
        clock.now += 1
        return parts.pop(0)

    clock = Clock()
    chores = [Chore("long", every=60, work=in_parts), chore(done, "short", 1.5)]
    leader = Leader("one@host", chores, clock)

    assert [leader.work() for _ in range(5)] == [True, True, True, True, False]
    assert done == ["part", "short", "part", "part", "short"]


def test_one_leads_and_the_next_one_when_it_is_silent() -> None:
    """Who was silent finds out that it does not lead any more."""
    done: list[str] = []
    clock = Clock()
    one = Leader("one@host", [chore(done, "one", 1.0)], clock)
    two = Leader("two@host", [chore(done, "two", 1.0)], clock)

    def both_work(after: float) -> list[str]:
        clock.now += after
        done.clear()
        until_idle(one)
        until_idle(two)
        return list(done)

    assert both_work(0) == ["one"]
    assert leader_now("default") == "one@host"
    assert both_work(4) == ["one"]
    assert (one.leads, two.leads, one.led_seconds) == (True, False, 4.0)
    end_lease()
    assert leader_now("default") == ""
    clock.now += 11
    done.clear()
    until_idle(two)
    assert done == ["two"]
    assert both_work(4) == ["two"]
    assert (one.leads, two.leads) == (False, True)
    assert one.led_seconds == 0


def test_a_lease_that_was_not_kept_is_not_led_by() -> None:
    """A recorder that is held up does nothing when it goes on before it has asked."""
    clock = Clock()
    leader = Leader("one@host", [], clock)
    leader.work()
    assert leader.leads
    clock.now += 10

    assert not leader.leads
    leader.work()
    assert (leader.leads, leader.led_seconds) == (True, 0.0)


def test_who_steps_down_makes_room_at_once() -> None:
    """And who never led takes nothing away."""
    clock = Clock()
    one, two = Leader("one@host", [], clock), Leader("two@host", [], clock)
    one.work()
    two.work()

    two.step_down()
    assert leader_now("default") == "one@host"
    one.step_down()
    clock.now += 3
    two.work()

    assert (one.leads, leader_now("default")) == (False, "two@host")


@pytest.mark.parametrize("every", [5.0, 3600.0])
def test_a_chore_that_fails_is_told_once_and_counted(
    every: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are done; it is tried again within a minute."""
    done: list[str] = []
    clock = Clock()
    works: Callable[[], bool] = lambda: 1 / 0 > 1  # noqa: E731 - raises
    broken = Chore("broken", every=every, work=lambda: works())
    leader = Leader("one@host", [broken, chore(done, "sound", 60.0)], clock)
    caplog.set_level(logging.WARNING, "unstuck")
    for _ in range(3):
        until_idle(leader)
        clock.now += 60
    assert leader.failed == 3
    assert done == ["sound"] * 3
    [told] = caplog.messages
    assert told.startswith("A chore failed, which is tried again: chore=broken every=")
    assert told.endswith('error="ZeroDivisionError: division by zero"')

    works = lambda: False  # noqa: E731
    until_idle(leader)
    until_idle(leader)

    assert leader.failed == 3
    assert caplog.messages[1:] == ["A chore works again: chore=broken"]


def test_who_cannot_ask_who_leads_fails_until_it_has_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No turn between two tries passes for a success: there is one trouble."""
    clock = Clock()
    duty = Duty(Leader("one@host", [], clock).work, "others do the chores", clock)
    rename("unstuck_lease", "elsewhere")
    for _ in range(120):
        duty.turn()
        clock.now += 0.5
    assert duty.database_away_since == 1000.0
    [told] = caplog.messages
    assert 'away=tables so="others do the chores"' in told
    assert told.endswith('do="manage.py migrate unstuck --database default"')

    rename("elsewhere", "unstuck_lease")
    clock.now += 30
    duty.turn()

    assert duty.database_away_since is None
    assert leader_now("default") == "one@host"
    [_, over] = caplog.messages
    assert "gets on again" in over


def test_a_chore_without_its_tables_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As after an upgrade whose migrations were forgotten."""

    def work() -> bool:
        raise OperationalError("table unstuck_node has no column named release")

    until_idle(Leader("one@host", [Chore("nodes", every=10, work=work)], Clock()))

    [told] = caplog.messages
    assert told.endswith('do="manage.py migrate unstuck --database default"')


def rename(table: str, to: str) -> None:
    """Put a table elsewhere, as if it had not been made."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {to}")
