"""What main does for the locks that its children have announced."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.services import Valkey
from tests.waiting import eventually
from unstuck.locks import backends, keeper
from unstuck.locks.backend import Backend, Claim, Taken
from unstuck.locks.owner import new_owner
from unstuck.pool import wire
from unstuck.pool.leases import Announcer, Leases
from unstuck.pool.member import State
from unstuck.pool.wire import Kind, Packet

LEASE = 1.0


@pytest.fixture
def locks(own_valkey: Valkey) -> Backend:
    """An empty place for locks, which may be stopped."""
    return backends.at(own_valkey.url(0))


@pytest.fixture
def leases(locks: Backend) -> Iterator[Leases]:
    """Main's room."""
    room = Leases(lambda: locks)
    yield room
    room.close()


class Child:
    """As much of a child as is asked for."""

    state = State.SERVING


def announced(leases: Leases, member: Any, claim: Claim, lease: float = LEASE) -> None:
    said = pickle.dumps((*claim, lease, None))
    leases.hear(member, Packet(Kind.CLAIM, 0, said))


def let_go(leases: Leases, member: Any, claim: Claim) -> None:
    leases.hear(member, Packet(Kind.UNCLAIM, 0, pickle.dumps(tuple(claim))))


def taken(locks: Backend, name: str) -> Claim:
    owner = new_owner()
    assert isinstance(locks.take(name, owner, LEASE), Taken)
    return Claim(name, owner.token)


def test_a_lease_is_renewed_while_its_child_lives(
    locks: Backend, leases: Leases
) -> None:
    """Not when the child has let go, nor when it is being killed."""
    kept, killed = Child(), Child()
    mine, given_back, lost = (taken(locks, name) for name in ("a", "b", "c"))
    for member, claim in ((kept, mine), (kept, given_back), (killed, lost)):
        announced(leases, member, claim)

    let_go(leases, kept, given_back)
    killed.state = State.KILLED
    time.sleep(1.5 * LEASE)

    assert [held.name for held in locks.all_held()] == ["a"]


def test_what_a_dead_child_held_is_free(locks: Backend, leases: Leases) -> None:
    """Also what it was just asking for; the others keep theirs."""
    dead, alive = Child(), Child()
    held, others, late = taken(locks, "a"), taken(locks, "b"), Claim("c", "late")
    for member, claim in ((dead, held), (alive, others), (dead, late)):
        announced(leases, member, claim, 60)

    leases.died(dead)
    eventually(lambda: not locks.is_held(held), 5)
    locks.take("c", replace(new_owner(), token="late"), 60)

    eventually(lambda: not locks.is_held(late), 5)
    assert locks.is_held(others)


def test_a_server_that_is_away_is_asked_again(
    own_valkey: Valkey, locks: Backend, leases: Leases
) -> None:
    """What a dead child held is free when it is back; nobody waits for that."""
    member, held = Child(), taken(locks, "a")
    locks.renew([held], 60)
    announced(leases, member, held, 60)

    own_valkey.stop()
    before = time.monotonic()
    leases.died(member)
    assert time.monotonic() - before < 5
    own_valkey.start()

    eventually(lambda: not locks.is_held(held), 15)


def test_a_child_says_what_it_may_hold_before_it_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And does not wait for main, whether that reads, or is there at all."""
    mains, childs = wire.pair()
    announcer, claim = Announcer(childs), Claim("a", "token")
    monkeypatch.setattr(keeper, "_current", announcer)

    announcer.begin(claim, LEASE, None)
    announcer.end(claim)
    said = [wire.receive(mains), wire.receive(mains)]
    for _ in range(10_000):
        announcer.begin(claim, LEASE, None)
    mains.close()
    announcer.begin(claim, LEASE, None)
    announcer.end(claim)
    childs.close()

    assert [(one.kind, pickle.loads(one.payload)) for one in said if one] == [
        (Kind.CLAIM, ("a", "token", LEASE, None)),
        (Kind.UNCLAIM, ("a", "token")),
    ]


def test_what_main_could_not_be_told_it_is_told_later() -> None:
    """Else it would renew for ever what is given back; not what is taken again."""
    mains, childs = wire.pair()
    announcer = Announcer(childs)
    kept, given_back, again = (Claim(name, "token") for name in ("a", "b", "c"))
    for claim in (kept, given_back, again):
        announcer.begin(claim, LEASE, None)
    while wire.send(childs, Packet(Kind.READY, 0, b""), wait=False):
        pass

    announcer.end(given_back)
    announcer.end(again)
    announcer.begin(again, LEASE, None)
    said_to(mains)
    announcer.catch_up()
    announcer.catch_up()

    assert [(one.kind, pickle.loads(one.payload)) for one in said_to(mains)] == [
        (Kind.UNCLAIM, tuple(given_back))
    ]
    for claim in (kept, again):
        announcer.end(claim)
    mains.close()
    childs.close()


def said_to(mains: Any) -> list[Packet]:
    """All that waits there."""
    said = []
    while packet := wire.receive(mains, wait=False):
        said.append(packet)
    return said
