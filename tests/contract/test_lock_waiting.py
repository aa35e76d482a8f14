"""Waiting for a lock, wherever it is kept: in turn, not for ever, and not in circles."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import pytest

from tests.contract.lock_places import (
    SOON,
    an_owner,
    apart,
    random_nests,
    taken,
    taken_apart,
    waiting_for,
)
from tests.crash.chaos import sized
from unstuck import DeadlockDetected, LockBusy, LocksUnreachable, lock
from unstuck.locks.backend import Backend, Busy, Owner, Taken
from unstuck.locks.owner import owned_by


def test_who_waits_gets_it(locks: Backend) -> None:
    """As soon as it is given back."""
    with lock("wanted") as first:
        second = apart(lambda: taken("wanted", wait=SOON))
        waiting_for(locks, "wanted", 1)

    assert second.result(SOON) > first.fence


def test_waiting_has_an_end(locks: Backend) -> None:
    """Then the lock is busy, and nobody waits for it."""
    with lock("wanted"):
        with pytest.raises(LockBusy, match=r"waited for 0\.3 s"):
            taken_apart("wanted", wait=0.3)

        assert [row.waiting for row in locks.all_held()] == [()]


def test_first_come_first_served(locks: Backend) -> None:
    """Each who waits gets it in turn, and nobody who comes later is before them."""
    order: list[int] = []

    def take(place: int) -> None:
        with lock("queue", wait=SOON):
            order.append(place)

    with lock("queue"):
        futures = []
        for place in range(6):
            futures.append(apart(lambda place=place: take(place)))  # type: ignore[misc]
            waiting_for(locks, "queue", place + 1)
    for future in futures:
        future.result(SOON)

    assert order == list(range(6))


def test_who_waits_is_not_overtaken_for_ever(locks: Backend) -> None:
    """Others take and give back without a pause; it has its turn."""
    done = threading.Event()

    def hurry() -> None:
        while not done.is_set():
            with lock("busy", wait=SOON):
                pass

    others = [apart(hurry) for _ in range(3)]
    for _ in range(20):
        taken_apart("busy", wait=SOON)
    done.set()
    for other in others:
        other.result(SOON)


def test_a_dead_one_in_the_line_stops_nobody(locks: Backend) -> None:
    """Who was first and comes no more is left out after a moment."""
    with lock("line"):
        for _ in range(2):
            dead = locks.take("line", an_owner(), 30, waits=True)
            assert isinstance(dead, Busy)
        alive = apart(lambda: taken("line", wait=SOON))
        waiting_for(locks, "line", 3)

    assert alive.result(SOON)
    assert taken_apart("line", wait=SOON)


def test_who_gives_up_when_it_is_its_turn_stops_nobody(locks: Backend) -> None:
    """What was handed to it goes on to the next."""
    first, second = an_owner(), an_owner()
    with lock("line"):
        for owner in (first, second):
            assert isinstance(locks.take("line", owner, 30, waits=True), Busy)

    locks.give_up("line", first)

    assert isinstance(locks.take("line", second, 30, waits=True), Taken)


def test_a_crowd_waits(locks: Backend) -> None:
    """Thirty threads, one after the other, none at the same time."""
    inside, most = [], []

    def take() -> None:
        with lock("crowd", wait=SOON):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    futures = [apart(take) for _ in range(30)]
    for future in futures:
        future.result(SOON * 2)

    assert most == [1] * 30


# Deadlocks.


def in_a_circle(
    count: int, *, before: Callable[[], None] | None = None
) -> list[Future[str]]:
    """So many owners, each with a lock, each waiting for that of the next one.

    The last is the youngest. ``before``: called when each has its lock.
    """
    gate = threading.Barrier(count, action=before)

    def take(place: int) -> str:
        with lock(f"circle:{place}"):
            gate.wait(SOON)
            with lock(f"circle:{(place + 1) % count}", wait=SOON):
                return "both"

    return [
        apart(
            lambda place=place: take(place), an_owner(str(place), born=1000.0 + place)
        )  # type: ignore[misc]
        for place in range(count)
    ]


@pytest.mark.parametrize("count", [2, 3, 10])
def test_of_a_circle_the_youngest_gives_way(locks: Backend, count: int) -> None:
    """It alone, told of the whole circle in words; all the others go on."""
    begun = time.monotonic()
    *others, youngest = in_a_circle(count)

    with pytest.raises(DeadlockDetected) as found:
        youngest.result(SOON)
    assert time.monotonic() - begun < 10
    assert [other.result(SOON) for other in others] == ["both"] * (count - 1)

    last = count - 1
    assert len(found.value.cycle) == count
    assert found.value.cycle[0] == (
        f"shop.run[{last}], process {os.getpid()} on celery@w1 holds 'circle:{last}' and "
        "waits for 'circle:0', which is held by "
        f"shop.run[0], process {os.getpid()} on celery@w1"
    )
    assert all(line in str(found.value) for line in found.value.cycle)
    assert locks.all_held() == []


def test_a_circle_that_closes_late_is_found(locks: Backend) -> None:
    """The others have waited for long, and ask again and again."""
    older, younger = an_owner("older", born=1000), an_owner("younger", born=2000)

    def hold_one() -> None:
        with lock("a"), lock("b", wait=SOON):
            pass

    with owned_by(younger), lock("b"):
        first = apart(hold_one, older)
        waiting_for(locks, "b", 1)
        time.sleep(2)
        begun = time.monotonic()
        with pytest.raises(DeadlockDetected):
            taken("a", wait=SOON)
        assert time.monotonic() - begun < 5
    first.result(SOON)


def test_who_waits_for_a_circle_is_not_of_it(locks: Backend) -> None:
    """However young it is."""
    outside: list[Future[int]] = []

    def come() -> None:
        late = an_owner("late", born=5000)
        outside.append(apart(lambda: taken("circle:0", wait=SOON), late))
        waiting_for(locks, "circle:0", 1)

    *others, youngest = in_a_circle(3, before=come)

    with pytest.raises(DeadlockDetected):
        youngest.result(SOON)
    assert [other.result(SOON) for other in others] == ["both"] * 2
    assert outside[0].result(SOON)


def test_a_slow_holder_is_no_deadlock(locks: Backend) -> None:
    """Nor is a chain of those who wait."""

    def take(mine: str, wanted: str) -> str:
        with lock(mine), lock(wanted, wait=SOON):
            return "both"

    with lock("slow"):
        first = apart(lambda: take("first", "slow"))
        waiting_for(locks, "slow", 1)
        second = apart(lambda: take("second", "first"))
        waiting_for(locks, "first", 1)
        time.sleep(1.5)

    assert first.result(SOON) == second.result(SOON) == "both"


def test_who_could_not_ask_waits_no_more(
    locks: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on within its block, so it is in no circle."""
    older, younger = an_owner("older", born=1000), an_owner("younger", born=2000)
    cut, done, take = threading.Event(), threading.Event(), locks.take

    def flaky(
        name: str, owner: Owner, lease: float, *, waits: bool = False
    ) -> Taken | Busy:
        if waits and owner == older and cut.is_set():
            raise LocksUnreachable("away", name=name)
        return take(name, owner, lease, waits=waits)

    def go_on() -> None:
        with lock("a"):
            with pytest.raises(LocksUnreachable), lock("b", wait=SOON):
                pass
            told.set()
            done.wait(SOON)

    told = threading.Event()
    monkeypatch.setattr(locks, "take", flaky)
    with owned_by(younger), lock("b"):
        first = apart(go_on, older)
        waiting_for(locks, "b", 1)
        cut.set()
        assert told.wait(SOON)
        threading.Timer(0.5, done.set).start()

        assert taken("a", wait=SOON)
        assert [held.waiting for held in locks.all_held()] == [()]
    first.result(SOON)


def test_one_who_died_is_in_no_circle(locks: Backend) -> None:
    """What it held goes with its lease; who waits for that need not give way."""
    dead, alive = an_owner("dead", born=1000), an_owner("alive", born=2000)
    for name, owner in (("a", dead), ("b", alive)):
        assert isinstance(locks.take(name, owner, 30), Taken)
    assert isinstance(locks.take("b", dead, 30, waits=True), Busy)
    time.sleep(1.6)

    answer = locks.take("a", alive, 30, waits=True)

    assert isinstance(answer, Busy)
    assert answer.cycle == ()


def test_no_alarm_where_no_circle_can_be(locks: Backend) -> None:
    """Random locks, nested in one order, by many owners: none waits for ever."""
    random_nests(locks, owners=8, locks=480)


def test_in_a_throng_everybody_gets_through(locks: Backend) -> None:
    """Two locks each, in any order: whoever is in a circle gives way and tries again."""
    gave_way: list[str] = []

    def work(seed: int) -> int:
        dice, through = random.Random(seed), 0
        while through < sized(6, 500):
            first, second = dice.sample("abcd", 2)
            try:
                with lock(first, wait=SOON * 3):
                    time.sleep(0.01)
                    with lock(second, wait=SOON * 3):
                        through += 1
            except DeadlockDetected as error:
                gave_way.append(error.name)
        return through

    results = [apart(partial(work, seed), an_owner(str(seed))) for seed in range(6)]

    assert [result.result(SOON * 6) for result in results] == [sized(6, 500)] * 6
    assert gave_way
    assert locks.all_held() == []
