"""What `lock()` promises, wherever the locks are kept."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.contract.lock_places import (
    SOON,
    Place,
    an_owner,
    apart,
    taken,
    taken_apart,
    waiting_for,
)
from tests.crash.chaos import sized
from tests.waiting import eventually
from unstuck import LockBusy, LockLost, lock
from unstuck.locks import keeper
from unstuck.locks.backend import Backend, Busy, Claim, Taken
from unstuck.locks.owner import current, owned_by


def test_a_lock_is_one_owners(locks: Backend) -> None:
    """Who comes second is told who holds it, in words and in facts."""
    begun = datetime.now(UTC)
    words = r"'report:42' is held by shop.run\[5f1c\]"
    with (
        owned_by(an_owner("5f1c")),
        lock("report:42"),
        pytest.raises(LockBusy, match=words) as busy,
    ):
        taken_apart("report:42")

    holder = busy.value.holder
    assert busy.value.name == "report:42"
    assert (holder.task, holder.task_id, holder.node) == (
        "shop.run",
        "5f1c",
        "celery@w1",
    )
    assert holder.pid == os.getpid()
    assert abs((holder.since - begun).total_seconds()) < SOON


def test_a_fence_only_grows(locks: Backend) -> None:
    """Whoever has a lock next has a higher one, of whatever name."""
    fences = []
    for name in ["a", "b", "a", "a", "b"]:
        with lock(name) as held:
            fences.append(held.fence)
        fences.append(taken_apart(name))

    assert fences == sorted(set(fences))


def test_an_owner_can_enter_again(locks: Backend) -> None:
    """With the same fence; the lock is given back with the outermost block."""
    with lock("again") as outer:
        with lock("again", wait=5) as inner, lock.many(["again", "other"]) as both:
            assert inner.fence == outer.fence == both["again"].fence
        outer.check()
        with pytest.raises(LockBusy):
            taken_apart("again")

    assert taken_apart("again") > outer.fence
    assert locks.all_held() == []


def test_a_decorator_takes_it_for_each_call(locks: Backend) -> None:
    """In each thread anew, and also within itself."""
    calls: list[int] = []

    @lock("decorated", wait=SOON)
    def fibonacci(number: int) -> int:
        """The number of rabbits."""
        calls.append(len(locks.all_held()))
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    results = [apart(lambda: fibonacci(5)) for _ in range(5)]

    assert [result.result(SOON) for result in results] == [5] * 5
    assert set(calls) == {1}
    assert fibonacci.__doc__ == "The number of rabbits."
    assert locks.all_held() == []


def test_many_are_all_or_none(locks: Backend) -> None:
    """In one order, each once; what was taken is given back when one is busy."""
    with lock.many(["c", "a", "c", "b"]) as held:
        assert list(held) == ["a", "b", "c"]
        assert [row.name for row in locks.all_held()] == ["a", "b", "c"]

    def take() -> None:
        with lock.many(["a", "b", "c"], wait=0.1):
            pytest.fail("b is held")

    with lock("b"):
        with pytest.raises(LockBusy) as busy:
            apart(take).result(SOON)
        assert busy.value.name == "b"
        assert [row.name for row in locks.all_held()] == ["b"]


def test_a_block_that_raises_gives_it_back(locks: Backend) -> None:
    """And its own error is the one that is heard, also when the lock was lost."""

    def work(*, loses_it: bool) -> None:
        with lock("raises"):
            if loses_it:
                locks.evict("raises")
            raise ZeroDivisionError

    for loses_it in (False, True):
        with pytest.raises(ZeroDivisionError):
            work(loses_it=loses_it)
        assert locks.all_held() == []


def test_what_an_owner_leaves_ends_with_it(locks: Backend, no_keeper: Keeper) -> None:
    """A limit may hit a task between taking a lock and the block that would give it back."""
    owner = an_owner()
    with owned_by(owner):
        lock("left").__enter__()
        with owned_by(owner):
            lock("left").__enter__()
        assert [row.owner for row in locks.all_held()] == [owner]

    assert locks.all_held() == []
    assert no_keeper.told[-1] == ("end", Claim("left", owner.token))


def test_whatever_interrupts_it_all_are_given_back(
    locks: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many, the others as well; of one, it is as if it had not been got."""
    release, take = locks.release, locks.take

    def interrupted_release(claim: Claim) -> bool:
        if claim.name == "b":
            raise KeyboardInterrupt
        return release(claim)

    def interrupted_take(*args: Any, **kwargs: Any) -> Any:
        take(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(locks, "release", interrupted_release)
        with pytest.raises(KeyboardInterrupt), lock.many(["a", "b", "c"]):
            pass
    assert [row.name for row in locks.all_held()] == ["b"]

    with monkeypatch.context() as patch:
        patch.setattr(locks, "take", interrupted_take)
        with pytest.raises(KeyboardInterrupt), lock("c"):
            pass
    assert [row.name for row in locks.all_held()] == ["b"]


def test_names_may_have_any_character(locks: Backend) -> None:
    """As long as one can print it."""
    names = ["a*b?[c]", "with space", "보고서:42", "x" * 255, "a:b:held", "%s'\"\\"]
    with lock.many(names) as held:
        assert sorted(row.name for row in locks.all_held()) == sorted(names)
        for one in held.values():
            one.check()

    assert locks.all_held() == []


# Leases.


def test_a_lease_is_renewed_while_its_holder_lives(locks: Backend) -> None:
    """Work may take longer than a lease; nested blocks and others have theirs as well."""
    with lock("long", lease=2) as held, lock("longer", lease=2.5) as other:
        time.sleep(3)
        held.check()
        other.check()

    eventually(lambda: _keepers() == [], 5)


def test_a_lease_is_over_when_nobody_renews_it(
    locks: Backend, no_keeper: Keeper
) -> None:
    """Whoever waits gets it, with a higher fence, and its holder is told."""

    def work() -> None:
        with lock("short", lease=1) as held:
            assert taken_apart("short", wait=SOON) > held.fence
            for ask in (held.check, lock("short").__enter__):
                with pytest.raises(LockLost, match="'short' was lost"):
                    ask()

    with pytest.raises(LockLost, match="'short' was lost"):
        work()


def test_no_lease_is_renewed_past_the_limit_of_its_owner(locks: Backend) -> None:
    """Whatever it does meanwhile."""
    owner = an_owner()
    with (
        owned_by(owner, until=time.monotonic() + 1),
        pytest.raises(LockLost),
        lock("limited", lease=1),
    ):
        assert taken_apart("limited", wait=SOON)


def test_a_holder_that_is_stopped_loses_it(place: Place, locks: Backend) -> None:
    """SIGSTOP: after the lease another has it; the holder is told when it goes on."""
    with place.holder("stopped", lease=2) as holder:
        with pytest.raises(LockBusy) as busy:
            taken_apart("stopped", wait=3)
        assert busy.value.holder.pid == holder.pid
        (row,) = locks.all_held()

        os.kill(holder.pid, signal.SIGSTOP)
        fence = taken_apart("stopped", wait=SOON)
        os.kill(holder.pid, signal.SIGCONT)

        assert fence > row.fence
        assert holder.leave() == "LockLost"


def test_a_holder_that_is_killed_has_it_for_its_lease(
    place: Place, locks: Backend
) -> None:
    """SIGKILL: then another gets it."""
    with place.holder("killed", lease=1) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        assert taken_apart("killed", wait=SOON)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_is_another_owner(locks: Backend) -> None:
    """It neither has what its parent has nor gives it back, nor tells its keeper."""
    told = Keeper()
    with owned_by(an_owner("5f1c")), lock("parents", lease=2) as held:
        keeper.use(told)
        child = os.fork()
        if child == 0:
            os._exit(_in_child(held.fence, told))
        keeper.use(None)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        time.sleep(2.5)
        held.check()


def _in_child(fence: int, told: Keeper) -> int:
    try:
        with lock("its own") as held:
            if held.fence <= fence or told.told:
                return 3
        with lock("parents"):
            return 2
    except LockBusy:
        return 0
    except BaseException:
        return 4


def test_an_operator_can_take_it_away(locks: Backend) -> None:
    """Who had it is told, and the next gets it."""
    owner = an_owner("5f1c")

    def work() -> None:
        with owned_by(owner), lock("taken away"):
            next_one = apart(lambda: taken("taken away", wait=SOON))
            waiting_for(locks, "taken away", 1)
            was = locks.evict("taken away")
            assert was is not None
            assert was.owner == owner
            next_one.result(SOON)

    with pytest.raises(LockLost, match="somebody released it"):
        work()
    assert locks.evict("taken away") is None


def test_it_is_taken_from_the_holder_who_was_meant(locks: Backend) -> None:
    """And not from the next one, who has it since."""
    first, second = an_owner(), an_owner()
    one = locks.take("meant", first, 30)
    assert isinstance(one, Taken)
    locks.release(Claim("meant", first.token))
    two = locks.take("meant", second, 30)
    assert isinstance(two, Taken)

    assert locks.evict("meant", "olga", fence=one.fence) is None
    assert locks.evict("meant", "olga", fence=0) is None
    assert locks.is_held(Claim("meant", second.token))
    assert locks.note_on("meant", two.fence) == ""
    was = locks.evict("meant", "olga", fence=two.fence)
    assert was is not None
    assert was.owner == second
    assert not locks.is_held(Claim("meant", second.token))


# What a backend promises beyond that.


def test_only_its_owner_can_release_or_renew_it(locks: Backend) -> None:
    """Others are told that it is not theirs."""
    mine, others = an_owner(), an_owner()
    locks.take("mine", mine, 30)
    good, bad = Claim("mine", mine.token), Claim("mine", others.token)
    none = Claim("none", mine.token)

    assert locks.renew([good, bad, none], 30) == {bad, none}
    assert locks.renew([], 30) == set()
    assert (locks.is_held(good), locks.is_held(bad)) == (True, False)
    assert locks.release(bad) is False
    assert locks.release(good) is True
    assert locks.release(good) is False


def test_who_holds_what_and_who_waits(locks: Backend) -> None:
    """By name, with all that is known of each."""
    first, second, third = an_owner("1"), an_owner("2"), an_owner("3")
    fence = locks.take("b", first, 30)
    locks.take("a", second, 60)
    locks.take("b", third, 30, waits=True)

    a, b = locks.all_held()

    assert isinstance(fence, Taken)
    assert (a.name, a.owner, a.waiting) == ("a", second, ())
    assert (b.name, b.owner, b.waiting, b.fence) == ("b", first, (third,), fence.fence)
    assert 50 < a.seconds_left <= 60
    assert abs(b.since - time.time()) < SOON


def test_it_agrees_with_a_dict(locks: Backend) -> None:
    """Random verbs of random owners, one after the other."""
    dice = random.Random(7)
    owners = [an_owner(str(number)) for number in range(4)]
    model: dict[str, tuple[str, int]] = {}
    last = 0
    for _ in range(sized(600, 30_000)):
        owner, name = dice.choice(owners), dice.choice("abc")
        claim, holder = Claim(name, owner.token), model.get(name)
        is_ours = holder is not None and holder[0] == owner.token
        match dice.choice(["take", "take", "release", "renew", "ask", "evict"]):
            case "take":
                answer = locks.take(name, owner, 30)
                if isinstance(answer, Busy):
                    assert holder == (answer.held.owner.token, answer.held.fence)
                    assert not is_ours
                elif is_ours:
                    assert holder == (owner.token, answer.fence)
                else:
                    assert holder is None
                    assert answer.fence > last
                    last = answer.fence
                    model[name] = (owner.token, last)
            case "release":
                assert locks.release(claim) is is_ours
                if is_ours:
                    del model[name]
            case "renew":
                assert locks.renew([claim], 30) == (set() if is_ours else {claim})
            case "ask":
                assert locks.is_held(claim) is is_ours
            case "evict" if dice.random() < 0.1:
                was = locks.evict(name)
                assert (was and was.fence) == (holder and holder[1])
                model.pop(name, None)


# Keepers.


class Keeper:
    """Keeps nothing, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, claim: Claim, lease: float, until: float | None) -> None:
        """It was told to begin."""
        self.told.append(("begin", claim, lease, until))

    def end(self, claim: Claim) -> None:
        """It was told to end."""
        self.told.append(("end", claim))


@pytest.fixture
def no_keeper() -> Iterator[Keeper]:
    """Nobody keeps the leases of this process."""
    made = Keeper()
    keeper.use(made)
    yield made
    keeper.use(None)


def test_a_keeper_knows_before_the_lock_is_taken(
    locks: Backend, no_keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever is killed in that instant is known to it; and when it is over."""
    claim = Claim("kept", current().token)
    begin = ("begin", claim, 10, None)
    told_when_asked: list[Any] = []
    take = locks.take

    def asked(*args: Any, **kwargs: Any) -> Any:
        told_when_asked.extend(no_keeper.told)
        return take(*args, **kwargs)

    monkeypatch.setattr(locks, "take", asked)
    with lock("kept", lease=10), lock("kept", lease=20):
        assert no_keeper.told == told_when_asked == [begin]
    assert no_keeper.told == [begin, ("end", claim)]


def test_a_keeper_is_told_of_what_was_not_got(
    locks: Backend, no_keeper: Keeper
) -> None:
    """Busy: there is nothing to keep."""
    owner = an_owner()
    locks.take("busy", owner, 30)

    with pytest.raises(LockBusy), lock("busy"):
        pytest.fail("it is busy")

    assert [verb for verb, *_ in no_keeper.told] == ["begin", "end"]


# Notes.


def test_notes_are_for_those_who_have_it_next(locks: Backend) -> None:
    """Only who holds a lock writes them; they outlive it, and other locks have others."""
    one, two = an_owner("1"), an_owner("2")
    first, second = Claim("noted", one.token), Claim("noted", two.token)
    assert locks.notes("noted") == {}
    assert not locks.note(first, {"a": "early"})

    locks.take("noted", one, 30)
    assert locks.note(first, {"a": "1", "né": "{}"})
    assert locks.note(first, {"a": "2", "b": "3"})
    assert not locks.note(second, {"a": "stolen"})
    locks.release(first)
    assert not locks.note(first, {"a": "late"})
    locks.take("noted", two, 30)
    assert locks.notes("noted") == {"a": "2", "b": "3", "né": "{}"}

    assert locks.note(second, {"a": "", "unknown": ""})
    assert locks.notes("noted") == {"b": "3", "né": "{}"}
    assert locks.notes("other") == {}


def _keepers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "unstuck lock keeper"]
