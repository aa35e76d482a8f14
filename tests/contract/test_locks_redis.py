"""Locks in Redis: what becomes of them when something befalls the server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.conftest import NAME
from tests.contract.lock_places import an_owner, apart, waiting_for
from tests.sites import STREAMS
from tests.unit import dead
from tests.waiting import eventually
from unstuck import LockLost, LocksUnreachable, lock
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Claim, Taken

BOUND = 15
"""Seconds; nothing waits longer for a server that says nothing."""

FENCE = "unstuck:lock:fence"


@pytest.fixture
def server(servers: dict[str, Any]) -> Any:
    """A server with nothing in it."""
    servers[NAME].flush()
    return servers[NAME]


@pytest.fixture
def locks(server: Any) -> Iterator[Backend]:
    """Locks in it."""
    yield from _used(backends.at(server.url(0)))


@pytest.fixture
def own_locks(own_server: Any) -> Iterator[Backend]:
    """Locks in a server that the test may stop; its answers are soon too late."""
    yield from _used(backends.at(own_server.url(0), {"socket_timeout": 1}))


def _used(backend: Backend) -> Iterator[Backend]:
    backends.use(backend)
    yield backend
    backends.use(None)


def fence_of(name: str) -> int:
    """Take a lock and give it back."""
    with lock(name) as held:
        return held.fence


def reads(server: Any) -> int:
    """How often the server has read something from clients."""
    with server.client() as client:
        return int(client.info("stats")["total_reads_processed"])


def test_two_round_trips_and_nothing_left(locks: Backend, server: Any) -> None:
    """One to take it and one to give it back; of it all a number stays."""
    fence_of("warm")
    before = reads(server)
    for _ in range(50):
        fence_of("counted")

    # A look of our own costs a handful.
    assert 100 <= reads(server) - before < 110
    with server.client() as client:
        assert client.keys() == [FENCE.encode()]


def test_whoever_waited_leaves_nothing(locks: Backend, server: Any) -> None:
    """Neither a place in the line nor a call to wake up."""
    with lock("wanted"):
        waiters = [apart(lambda: _take("wanted")) for _ in range(3)]
        waiting_for(locks, "wanted", 3)
    for waiter in waiters:
        waiter.result(BOUND)

    with server.client() as client:
        eventually(lambda: client.keys() == [FENCE.encode()])


def test_a_holder_reads_who_took_it_and_why(locks: Backend, server: Any) -> None:
    """It alone, not who had the lock before or has it next; the note goes by itself."""

    def work() -> None:
        with lock("x") as held:
            fences.append(held.fence)
            locks.evict("x", "olga@web1: its host is gone")
            fences.append(apart(lambda: _take("x")).result(BOUND))

    fences = [fence_of("x")]
    with pytest.raises(LockLost, match="released by olga@web1: its host is gone"):
        work()

    notes = [locks.note_on("x", fence) for fence in fences]
    assert notes == ["", "olga@web1: its host is gone", ""]
    with server.client() as client:
        assert 0 < client.ttl(f"unstuck:lock:evicted:{fences[1]}") <= 86_400


def _take(name: str) -> int:
    with lock(name, wait=BOUND) as held:
        return held.fence


def test_a_clock_that_is_set_back_gives_no_lower_fence(
    locks: Backend, server: Any
) -> None:
    """The number that was given out last lies far in the future."""
    future = (time.time_ns() // 1000) + 10**12
    with server.client() as client:
        client.set(FENCE, future)

    assert [fence_of("a"), fence_of("b"), fence_of("a")] == [
        future + 1,
        future + 2,
        future + 3,
    ]


def test_scripts_that_the_server_has_forgotten(locks: Backend, server: Any) -> None:
    """They are told again."""
    fence_of("a")
    with server.client() as client:
        client.script_flush()

    with lock("a") as held:
        with server.client() as client:
            client.script_flush()
        held.check()


def test_a_server_that_was_emptied(locks: Backend, server: Any) -> None:
    """FLUSHALL: the holder is told, the next has a higher fence, who waits gets it."""

    def work() -> int:
        with lock("emptied") as held:
            waiter = apart(lambda: _take("emptied"))
            waiting_for(locks, "emptied", 1)
            server.flush()
            assert waiter.result(BOUND) > held.fence
            with pytest.raises(LockLost):
                held.check()
        return held.fence

    with pytest.raises(LockLost):
        work()


def test_a_server_that_restarts_with_its_data(
    own_locks: Backend, own_server: Any
) -> None:
    """The lock is still held, and given back as ever."""
    with lock("kept") as held:
        own_server.restart()
        eventually(lambda: _is_up(own_locks), BOUND)
        held.check()

    assert own_locks.all_held() == []
    assert fence_of("kept") > held.fence


def test_a_server_that_restarts_without_its_data(
    own_locks: Backend, own_server: Any
) -> None:
    """It is lost, and whoever has it next has a higher fence."""
    fences = []

    def work() -> None:
        with lock("gone") as held:
            fences.append(held.fence)
            own_server.kill()
            for path in own_server.directory.glob("append*"):
                _remove(path)
            own_server.start()
            eventually(lambda: _is_up(own_locks), BOUND)
            fences.append(apart(lambda: _take("gone")).result(BOUND))

    with pytest.raises(LockLost):
        work()
    assert fences[1] > fences[0]


def _remove(path: Any) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()
    else:
        path.unlink()


def _is_up(locks: Backend) -> bool:
    try:
        locks.all_held()
    except LocksUnreachable:
        return False
    return True


def test_a_server_that_is_gone(own_locks: Backend, own_server: Any) -> None:
    """Every verb says so, at once."""
    with pytest.raises(LocksUnreachable), lock("gone"):
        own_server.kill()
    begun = time.monotonic()

    for attempt in (lambda: fence_of("gone"), own_locks.all_held, lambda: _take("x")):
        with pytest.raises(LocksUnreachable, match=f":{own_server.port}"):
            attempt()
    assert time.monotonic() - begun < BOUND


def test_a_server_that_is_frozen(own_locks: Backend, own_server: Any) -> None:
    """SIGSTOP: whoever asks is told within seconds; a lease that is over is lost."""
    fence_of("warm")
    pid = own_server.pid

    def work() -> None:
        with lock("frozen", lease=2) as held:
            os.kill(pid, signal.SIGSTOP)
            begun = time.monotonic()
            try:
                with pytest.raises(LocksUnreachable):
                    held.check()
                with pytest.raises(LocksUnreachable):
                    apart(lambda: _take("frozen")).result(BOUND)
                assert time.monotonic() - begun < BOUND
                time.sleep(max(0, begun + 2.5 - time.monotonic()))
            finally:
                os.kill(pid, signal.SIGCONT)
            eventually(lambda: _is_up(own_locks), BOUND)

    with pytest.raises(LockLost):
        work()
    assert own_locks.all_held() == []


def test_a_server_that_is_full(own_locks: Backend, own_server: Any) -> None:
    """It takes no messages any more, and yet locks are kept as ever."""
    with own_server.setting(maxmemory=1), lock("full") as held:
        waiter = apart(lambda: _take("full"))
        waiting_for(own_locks, "full", 1)
        assert own_locks.renew([held._holding.claim], 30) == set()
        held.check()

    assert waiter.result(BOUND) > held.fence


def test_connections_that_break(locks: Backend, server: Any) -> None:
    """CLIENT KILL while threads wait: each gets it or is told; then all is well."""
    results = []

    def take() -> None:
        try:
            results.append(_take("broken"))
        except LocksUnreachable:
            results.append(0)

    with lock("broken"):
        waiters = [apart(take) for _ in range(4)]
        waiting_for(locks, "broken", 4)
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
    for waiter in waiters:
        waiter.result(BOUND)

    assert len(results) == 4
    assert _take("broken") > max(results)


def test_more_waiters_than_kombu_has_connections(locks: Backend) -> None:
    """Each of them keeps one busy."""
    with lock("popular"):
        waiters = [apart(lambda: _take("popular")) for _ in range(25)]
        waiting_for(locks, "popular", 25)

    assert len({waiter.result(BOUND) for waiter in waiters}) == 25


def test_a_prefix_of_all_names(server: Any) -> None:
    """kombu's ``global_keyprefix``, odd signs and all, parts projects on one server."""
    theirs = backends.at(server.url(0))
    ours = backends.at(server.url(0), {"global_keyprefix": "a*[b]?:"})
    owner = an_owner()

    assert isinstance(theirs.take("same", an_owner(), 30), Taken)
    assert isinstance(ours.take("same", owner, 30), Taken)

    assert [held.owner for held in ours.all_held()] == [owner]
    with server.client() as client:
        assert client.exists("a*[b]?:unstuck:lock:held:same")


@pytest.mark.parametrize("prefix", ["", STREAMS])
def test_on_the_broker_of_the_project(server: Any, prefix: str) -> None:
    """By kombu's own transport and by ours, with the options of the broker."""
    broker = {
        "broker_url": prefix + server.url(3),
        "broker_transport_options": {"global_keyprefix": "shop:"},
    }
    with dead.celery_app(**broker), server.client(3) as client:
        backends.use(None)
        with lock("project's"):
            assert client.exists("shop:unstuck:lock:held:project's")
        backends.use(None)


def test_locks_of_another_database(server: Any) -> None:
    """The number in the address counts."""
    one, other = backends.at(server.url(1)), backends.at(server.url(2))

    assert isinstance(one.take("same", an_owner(), 30), Taken)
    assert isinstance(other.take("same", an_owner(), 30), Taken)


def test_many_more_locks_than_one_step_takes(locks: Backend) -> None:
    """They are listed and renewed in batches."""
    owner = an_owner()
    for number in range(1200):
        locks.take(f"lock {number:04}", owner, 30)

    rows = locks.all_held()

    assert [row.name for row in rows] == [f"lock {number:04}" for number in range(1200)]
    claims = [Claim(row.name, owner.token) for row in rows]
    assert locks.release(claims[700])
    assert locks.renew(claims, 60) == {claims[700]}
    assert min(row.seconds_left for row in locks.all_held()) > 40
