"""What is particular to locks in a database; what all locks promise is in test_locks.py."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connections, transaction

from tests.contract.databases import backend_on
from tests.waiting import eventually
from unstuck.core.errors import LockError, LocksUnreachable, SettingsError
from unstuck.locks import database, sessions, waiting
from unstuck.locks.backend import Busy, Claim, Owner, Taken
from unstuck.locks.database import DatabaseBackend
from unstuck.locks.statements import statements_for

LEASE = 30.0
NOT_A_HANG = 15.0


def owner(token: str = "a", born: float = 1.0) -> Owner:
    """Somebody."""
    return Owner(token=token, born=born, pid=1, node="here", task_name="shop.report")


def fence(backend: DatabaseBackend, name: str, who: str = "a") -> int:
    """Take a lock that is free; its fence."""
    answer = backend.take(name, owner(who), LEASE)
    assert isinstance(answer, Taken), answer
    return answer.fence


def rows(url: str, table: str = "unstuck_lock") -> list[tuple[Any, ...]]:
    """What is in a table, as anybody else sees it."""
    select = f"SELECT name FROM {table} ORDER BY name"
    if url.startswith("sqlite"):
        file = sqlite3.connect(url.removeprefix("sqlite:///"))
        try:
            return file.execute(select).fetchall()
        finally:
            file.close()
    with psycopg.connect(url) as connection:
        return connection.execute(select).fetchall()  # type: ignore[arg-type]


def sessions_of(url: str) -> list[int]:
    """The processes of the server that serve this one."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    return [pid for (pid,) in found]


@contextmanager
def no_hang() -> Iterator[None]:
    """The block must not wait for ever."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < NOT_A_HANG


# Beside the caller's transaction.


@contextmanager
def rolled_back(locks: DatabaseBackend) -> Iterator[None]:
    """A transaction that comes to nothing."""
    with transaction.atomic(using=locks.alias):
        yield
        transaction.set_rollback(True, using=locks.alias)


def test_a_lock_outlives_the_rollback_of_the_transaction_it_is_taken_in(
    database_locks: DatabaseBackend,
) -> None:
    """Others see it at once, and afterwards as well."""
    other = DatabaseBackend(database_locks.alias)

    with rolled_back(database_locks):
        fence(database_locks, "x")
        assert isinstance(other.take("x", owner("b"), LEASE), Busy)

    assert database_locks.is_held(Claim("x", "a"))
    other.close()


def test_a_release_outlives_the_rollback_of_the_transaction_it_is_done_in(
    postgresql_locks: DatabaseBackend,
) -> None:
    """The rows of the caller are one thing, the lock another."""
    fence(postgresql_locks, "x")

    with rolled_back(postgresql_locks):
        assert postgresql_locks.release(Claim("x", "a"))

    assert fence(postgresql_locks, "x", "b")


def test_sqlite_in_a_transaction_that_has_written_is_told_at_once(
    sqlite_locks: DatabaseBackend,
) -> None:
    """It would wait for itself: the error says what to do, and the transaction lives."""
    with transaction.atomic(using=sqlite_locks.alias):
        write_something(sqlite_locks)
        with no_hang(), pytest.raises(LockError, match="outside of the transaction"):
            sqlite_locks.take("x", owner(), LEASE)
        write_something(sqlite_locks)

    assert fence(sqlite_locks, "x")


def write_something(locks: DatabaseBackend) -> None:
    """In the transaction of the caller."""
    with connections[locks.alias].cursor() as cursor:
        cursor.execute("UPDATE unstuck_node SET state = 'gone'")


def test_sqlite_that_another_process_writes_to_is_unreachable(
    sqlite_locks: DatabaseBackend, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ours to tell anything about transactions; and afterwards it goes on."""
    monkeypatch.setattr(sessions, "BUSY_SECONDS", 0.2)
    # What our tests tell each new connection fails already, and Django leaves that open.
    fence(sqlite_locks, "connected")
    path = sqlite_url.removeprefix("sqlite:///")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(LocksUnreachable, match="locked"):
        sqlite_locks.take("x", owner(), LEASE)
    other.close()

    assert fence(sqlite_locks, "x")


# Fences and rows.


def test_fences_grow_over_all_names_also_when_their_rows_are_gone(
    database_locks: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database gives no number twice."""
    monkeypatch.setattr(database, "FREE_SECONDS", 0)
    seen = []
    for name in "xyzx":
        seen.append(fence(database_locks, name))
        assert database_locks.release(Claim(name, "a"))
        time.sleep(0.002)  # SQLite's clock has milliseconds
        database_locks.prune()

    assert seen == sorted(set(seen))


def test_fences_grow_also_when_the_clock_is_set_back(
    database_locks: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The highest ever given is known for ever, whatever is pruned."""
    monkeypatch.setattr(database, "FREE_SECONDS", 0)
    fence(database_locks, "x")
    tomorrow = time.time_ns() // 1000 + 86_400_000_000
    with database_locks._transaction() as cursor:
        cursor.execute("UPDATE unstuck_lock SET fence = %s", [tomorrow])

    seen = [tomorrow]
    for name in "xyx":
        database_locks.release(Claim("x", "a"))
        time.sleep(0.002)
        database_locks.prune()
        seen.append(fence(database_locks, name))

    assert seen == list(range(tomorrow, tomorrow + 4))


def test_a_lock_whose_lease_is_over_is_taken_with_a_higher_fence(
    database_locks: DatabaseBackend,
) -> None:
    """And its old holder has it no longer, in any way."""
    first = database_locks.take("x", owner("a"), 0.05)
    assert isinstance(first, Taken)
    time.sleep(0.1)

    assert database_locks.renew([Claim("x", "a")], LEASE) == {Claim("x", "a")}
    assert fence(database_locks, "x", "b") > first.fence
    assert not database_locks.release(Claim("x", "a"))
    assert database_locks.is_held(Claim("x", "b"))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_million_names_do_not_stay(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes locks cleans up now and then; what is held or awaited stays."""
    url = request.getfixturevalue(f"{kind}_url")
    locks: DatabaseBackend = request.getfixturevalue(f"{kind}_locks")
    monkeypatch.setattr(database, "FREE_SECONDS", 0)
    monkeypatch.setattr(database, "PRUNE_EVERY", 10)
    fence(locks, "held")
    locks.take("held", owner("b"), LEASE, waits=True)

    for number in range(30):
        fence(locks, f"name {number}")
        locks.release(Claim(f"name {number}", "a"))
        time.sleep(0.002)

    assert len(rows(url)) < 15
    assert ("held",) in rows(url)
    assert rows(url, "unstuck_lockwaiter") == [("held",)]


# Many at once.


def test_threads_exclude_each_other_and_share_connections(
    database_locks: DatabaseBackend,
) -> None:
    """Each of many increments is done by one alone, with a higher fence than before."""
    total, fences = 0, []

    def increment(number: int) -> None:
        nonlocal total
        who = owner(f"thread {number}", number)
        while isinstance(
            answer := database_locks.take("x", who, LEASE, waits=True), Busy
        ):
            database_locks.wait("x", who, 0.5)
        fences.append(answer.fence)
        seen = total
        time.sleep(0.001)
        total = seen + 1
        assert database_locks.release(Claim("x", who.token))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(increment, range(18)))

    assert total == 18
    assert fences == sorted(set(fences))
    assert len(database_locks._sessions._idle) <= 6


def test_our_own_statements_do_not_wait_for_each_other_in_a_circle(
    postgresql_locks: DatabaseBackend,
) -> None:
    """Takes, renewals, evictions and prunes of the same few rows, in any order."""
    names = ["x", "y", "z"]
    claims = [Claim(name, who) for name in names for who in "abcd"]
    until = time.monotonic() + 1.5

    def disturb(number: int) -> int:
        who, done = owner("abcd"[number % 4]), 0
        while time.monotonic() < until:
            for name in names[number % 3 :] + names[: number % 3]:
                postgresql_locks.take(name, who, LEASE, waits=bool(number % 2))
            postgresql_locks.renew(claims[number:] + claims[:number], LEASE)
            postgresql_locks.release(Claim(names[number % 3], who.token))
            postgresql_locks.evict(names[done % 3])
            postgresql_locks.prune()
            done += 1
        return done

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(disturb, range(6)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(
    database_locks: DatabaseBackend,
) -> None:
    """Its end does not end those of its parent."""
    fence(database_locks, "x")
    before = list(database_locks._sessions._idle)

    pid = os.fork()
    if not pid:
        status = 1
        try:
            fence(database_locks, "y")
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)

    assert status == 0
    assert [held.name for held in database_locks.all_held()] == ["x", "y"]
    assert database_locks._sessions._idle == before


def test_connections_that_nobody_uses_are_closed(
    postgresql_locks: DatabaseBackend,
    postgresql_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who took one lock this morning keeps none all day."""
    monkeypatch.setattr(sessions, "IDLE_SECONDS", 0.2)

    fence(postgresql_locks, "x")

    eventually(lambda: not sessions_of(postgresql_url), 10)
    assert fence(postgresql_locks, "y")


IN_TESTS = sessions._in_tests


def test_in_the_tests_of_a_project_none_is_kept(
    postgresql_locks: DatabaseBackend,
    postgresql_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else Django could not drop the database at their end."""
    monkeypatch.setattr(sessions, "_in_tests", IN_TESTS)

    fence(postgresql_locks, "x")

    assert postgresql_locks._sessions._idle == []
    eventually(lambda: not sessions_of(postgresql_url), 10)


# Trouble with the server.


def test_another_session_of_the_server_is_as_good(
    postgresql_locks: DatabaseBackend, postgresql_url: str
) -> None:
    """As behind a proxy: nothing that matters belongs to a connection."""
    first = fence(postgresql_locks, "x")
    postgresql_locks.take("x", owner("b"), LEASE, waits=True)

    for pid in sessions_of(postgresql_url):
        os.kill(pid, signal.SIGTERM)

    assert postgresql_locks.renew([Claim("x", "a")], LEASE) == set()
    [held] = postgresql_locks.all_held()
    assert (held.fence, held.waiting) == (first, (owner("b"),))


def test_a_session_is_left_as_it_was(postgresql_locks: DatabaseBackend) -> None:
    """Behind a proxy it is somebody else's next."""
    fence(postgresql_locks, "x")

    [line] = postgresql_locks._sessions._idle
    with line.connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": psycopg.IsolationLevel.SERIALIZABLE},
        {"server_side_binding": True},
        {"options": "-c default_transaction_read_only=on"},
        {"pool": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_the_projects_own_way_with_connections_changes_nothing(
    postgresql_url: str, django_db_blocker: Any, options: dict[str, Any]
) -> None:
    """Some of it would keep locks from working."""
    url = postgresql_url
    with backend_on(url, django_db_blocker, OPTIONS=options) as locks:
        contend(locks)
        assert [held.name for held in locks.all_held()] == ["x"]
        assert locks.renew([Claim("x", "a")], LEASE) == set()
        assert locks.evict("x") is not None


def contend(locks: DatabaseBackend) -> None:
    """Several take what only one of them can have."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: locks.take("x", owner("a"), LEASE), range(9)))
    assert isinstance(locks.take("x", owner("b"), LEASE, waits=True), Busy)


def test_a_server_that_is_started_again_finds_the_lock_held(
    own_postgres: Any, migrated: Callable[[Any], str], django_db_blocker: Any
) -> None:
    """While it is away each call says so, and fast; then the lease is renewed."""
    url = migrated(own_postgres)
    with backend_on(url, django_db_blocker) as locks:
        first = fence(locks, "x")
        own_postgres.stop()
        for call in (
            lambda: locks.renew([Claim("x", "a")], LEASE),
            lambda: locks.take("x", owner("b"), LEASE),
            lambda: locks.wait("x", owner("b"), 1),
            lambda: locks.release(Claim("x", "a")),
            lambda: locks.all_held(),
        ):
            with no_hang(), pytest.raises(LocksUnreachable):
                call()

        own_postgres.start()

        assert locks.renew([Claim("x", "a")], LEASE) == set()
        assert isinstance(locks.take("x", owner("b"), LEASE), Busy)
        assert [held.fence for held in locks.all_held()] == [first]


@pytest.fixture
def migrated(tmp_path: Path) -> Callable[[Any], str]:
    """Makes a database with our tables on that server."""

    def make(server: Any) -> str:
        from tests.node import Site

        base = server.database()
        site = Site(directory=tmp_path, broker="memory://", database=base.url)
        site.manage("migrate", "unstuck", "-v", "0")
        return str(base.url)

    return make


def test_a_server_that_says_nothing_is_given_up(
    postgresql_locks: DatabaseBackend,
    postgresql_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session that is frozen: neither the server nor the network ends the wait."""
    monkeypatch.setattr(sessions, "ANSWER_SECONDS", 0.5)
    fence(postgresql_locks, "x")
    [pid] = sessions_of(postgresql_url)

    os.kill(pid, signal.SIGSTOP)
    try:
        with (
            no_hang(),
            pytest.raises(LocksUnreachable, match=r"no answer within 0\.5 s"),
        ):
            postgresql_locks.renew([Claim("x", "a")], LEASE)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert postgresql_locks.renew([Claim("x", "a")], LEASE) == set()


def test_whose_wait_ends_by_an_outage_is_forgotten(
    database_locks: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by its own process: each run has a new token, and outages have many."""

    def unreachable(*_: Any, **__: Any) -> Any:
        raise LocksUnreachable("away", name="x")

    def break_down(*_: Any) -> None:
        assert database_locks._waiting._noted
        monkeypatch.setattr(database_locks, "_transaction", unreachable)

    fence(database_locks, "x")
    monkeypatch.setattr(database_locks, "wait", break_down)

    with pytest.raises(LocksUnreachable):
        waiting.take(database_locks, "x", owner("b"), lease=LEASE, wait=5)

    assert database_locks._waiting._noted == {}


def test_a_table_that_somebody_keeps_locked_is_no_hang(
    postgresql_locks: DatabaseBackend, postgresql_url: str
) -> None:
    """A migration, say: it is told as any other trouble."""
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("LOCK TABLE unstuck_lock IN ACCESS EXCLUSIVE MODE")
        with no_hang(), pytest.raises(LocksUnreachable, match="lock timeout"):
            postgresql_locks.take("x", owner(), LEASE)
    assert fence(postgresql_locks, "x")


def test_who_is_stopped_in_the_middle_does_not_keep_others_waiting(
    postgresql_locks: DatabaseBackend,
) -> None:
    """The server ends a transaction of ours that goes on for seconds."""
    with pytest.raises(LocksUnreachable), postgresql_locks._transaction("x") as cursor:
        stop_with_the_table_locked(cursor, postgresql_locks)


def stop_with_the_table_locked(cursor: Any, locks: DatabaseBackend) -> None:
    """Do nothing until the server has had enough; others get it then."""
    cursor.execute("LOCK TABLE unstuck_lock IN ACCESS EXCLUSIVE MODE")
    cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '300ms'")
    assert fence(locks, "x")


def test_a_database_without_our_tables_says_what_to_do(
    tmp_path: Path, django_db_blocker: Any
) -> None:
    """`manage.py migrate unstuck`."""
    url = f"sqlite:///{tmp_path}/empty"
    with (
        backend_on(url, django_db_blocker) as locks,
        pytest.raises(LocksUnreachable, match=r"manage\.py migrate unstuck"),
    ):
        locks.take("x", owner(), LEASE)


def test_other_databases_cannot_keep_locks() -> None:
    """MySQL, say: the error tells what can."""
    with pytest.raises(SettingsError, match=r"'default', which is mysql.*LOCK_URL"):
        statements_for("mysql", "default")


# Circles.


def test_a_circle_is_seen_by_each_who_is_in_it(database_locks: DatabaseBackend) -> None:
    """Whoever asks is named first; somebody who only waits for it is in no circle."""
    owners = [owner(f"owner {number}", number) for number in range(5)]
    for number, who in enumerate(owners):
        fence(database_locks, f"lock {number}", who.token)
        assert isinstance(database_locks.take(f"lock {number}", who, LEASE), Taken)
    for number, who in enumerate(owners[:-1]):
        answer = database_locks.take(f"lock {number + 1}", who, LEASE, waits=True)
        assert isinstance(answer, Busy)
        assert answer.cycle == ()

    last = database_locks.take("lock 0", owners[-1], LEASE, waits=True)
    first = database_locks.take("lock 1", owners[0], LEASE, waits=True)
    aside = database_locks.take("lock 2", owner("aside"), LEASE, waits=True)

    assert isinstance(last, Busy)
    assert isinstance(first, Busy)
    assert isinstance(aside, Busy)
    assert [name for name, _ in last.cycle] == [f"lock {n}" for n in (0, 1, 2, 3, 4)]
    assert [name for name, _ in first.cycle] == [f"lock {n}" for n in (1, 2, 3, 4, 0)]
    assert [who.token for _, who in first.cycle] == [who.token for who in owners]
    assert aside.cycle == ()


def test_nobody_who_comes_later_is_before_one_who_waits(
    database_locks: DatabaseBackend,
) -> None:
    """For a moment; then it is anybody's, as he may be dead."""
    fence(database_locks, "x")
    database_locks.take("x", owner("b"), LEASE, waits=True)
    database_locks.release(Claim("x", "a"))

    for waits in (False, True):
        answer = database_locks.take("x", owner("c"), LEASE, waits=waits)
        assert isinstance(answer, Busy)
        assert answer.held.owner.token == "b"
    eventually(
        lambda: isinstance(
            database_locks.take("x", owner("c"), LEASE, waits=True), Taken
        ),
        10,
    )


def test_one_who_waits_is_awake_soon(database_locks: DatabaseBackend) -> None:
    """He need not be told, and does not sleep to the end."""
    fence(database_locks, "x")
    database_locks.take("x", owner("b"), LEASE, waits=True)
    timer = threading.Timer(0.2, database_locks.release, [Claim("x", "a")])
    timer.start()

    with no_hang():
        database_locks.wait("x", owner("b"), 60)

    timer.join()
    assert fence(database_locks, "x", "b")
