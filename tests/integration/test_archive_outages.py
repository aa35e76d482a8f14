"""Databases that fail under load: the archive gets slow, and nothing else does.

Afterwards every letter is there once, every run, and every count of every minute.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.crash.chaos import SOAK
from tests.integration.sending import TASKS
from tests.integration.tables import file_of, rows
from tests.node import Node, Site, children_of
from tests.services import PostgreSQL
from tests.sites import MakeSite
from tests.waiting import eventually
from unstuck.core.histogram import Histogram

HOLD_SECONDS = 60 if SOAK else 3
WELL, BAD = (2_000, 500) if SOAK else (60, 20)
"""Tasks that are sent before, during and after the trouble, each time."""

FELT = "got no further, which is tried again: away=database"
TABLES = ("deadletter", "taskrun", "taskminute", "incident", "node")

Fault = Callable[[Site, Node], AbstractContextManager[bool]]
"""Does harm within a block; says whether the recorder is bound to notice."""

pytestmark = pytest.mark.timeout(900 if SOAK else 240)


def send_many(site: Site) -> dict[str, list[str]]:
    """Send tasks that end well and tasks that do not; their ids."""
    with site.client() as app:
        return {
            name: [str(app.send_task(TASKS + name, args).id) for _ in range(number)]
            for name, number, args in (("fail", BAD, ()), ("add", WELL, (1, 2)))
        }


def have_run(site: Site, ids: dict[str, list[str]]) -> bool:
    """Whether all of them have begun to run."""
    begun = {event["id"] for event in site.events()}
    return begun.issuperset([task_id for each in ids.values() for task_id in each])


@contextmanager
def stopped(site: Site, node: Node, *, postgres: PostgreSQL) -> Iterator[bool]:
    """Nobody listens any more."""
    postgres.stop()
    try:
        yield True
    finally:
        postgres.start()


@contextmanager
def hanging(site: Site, node: Node, *, postgres: PostgreSQL) -> Iterator[bool]:
    """The kernel takes what is sent to it, and nobody answers."""
    processes = [postgres.pid, *children_of(postgres.pid)]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield True
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def read_only(site: Site, node: Node, *, postgres: PostgreSQL) -> Iterator[bool]:
    """As after a failover to a replica."""
    name = site.database.rpartition("/")[2]
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_read_only = on"  # type: ignore[arg-type]
        )
        terminate(site, connection)
        try:
            yield True
        finally:
            connection.execute(
                f"ALTER DATABASE {name} RESET default_transaction_read_only"  # type: ignore[arg-type]
            )


@contextmanager
def locked(site: Site, node: Node, *, postgres: PostgreSQL) -> Iterator[bool]:
    """As by a migration that takes its time."""
    with psycopg.connect(site.database) as connection:
        names = ", ".join(f"unstuck_{name}" for name in TABLES)
        connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")  # type: ignore[arg-type]
        yield True


@contextmanager
def full(site: Site, node: Node, *, postgres: PostgreSQL) -> Iterator[bool]:
    """What PostgreSQL says when its disk is."""
    with psycopg.connect(site.database, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"
        )
        for name in TABLES:
            connection.execute(
                f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON unstuck_{name} "  # type: ignore[arg-type]
                "EXECUTE FUNCTION full_disk()"
            )
        yield True
        connection.execute("DROP FUNCTION full_disk CASCADE")


@contextmanager
def terminated(site: Site, node: Node, *, postgres: PostgreSQL) -> Iterator[bool]:
    """Its connections are ended, again and again."""
    over = threading.Event()

    def go_on() -> None:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            while not over.wait(0.2):
                terminate(site, connection)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield False
    finally:
        over.set()
        thread.join()


def terminate(site: Site, connection: psycopg.Connection[Any]) -> None:
    """End all sessions in the site's database."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
        [site.database.rpartition("/")[2]],
    )


@contextmanager
def locked_file(site: Site, node: Node) -> Iterator[bool]:
    """As by another process that writes much."""
    with closing(sqlite3.connect(file_of(site), isolation_level=None)) as other:
        other.execute("PRAGMA busy_timeout = 30000")
        other.execute("BEGIN EXCLUSIVE")
        yield True
        other.execute("ROLLBACK")


@contextmanager
def no_room(site: Site, node: Node) -> Iterator[bool]:
    """The recorder may write no file beyond the size that this one has now."""
    path, pid = file_of(site), recorder_of(node)
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (os.path.getsize(path), most))
    try:
        yield True
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def recorder_of(node: Node) -> int:
    """The process that writes the archive."""
    [pid] = node.companions_pids
    return pid


def bear(site: Site, *faults: Fault) -> None:
    """Work through faults, one after another, and account for everything."""
    site.settings = {**site.settings, "UNSTUCK": {"STALL_SECONDS": 10}}
    with site.node() as node:
        main, recorder = node.main, recorder_of(node)
        ids = [send_many(site)]
        for fault in faults:
            eventually(lambda: archived(site) == len(ids) * BAD, 60)
            before = node.log().count(FELT)
            with fault(site, node) as felt:
                until = time.monotonic() + HOLD_SECONDS
                ids.append(send_many(site))
                eventually(lambda: have_run(site, ids[-1]), 60)
                if felt:
                    eventually(partial(is_felt, node, before), 30)
                time.sleep(max(0.0, until - time.monotonic()))
        ids.append(send_many(site))
        expected = (len(ids) * WELL, len(ids) * BAD)
        eventually(lambda: archived(site) == len(ids) * BAD, 60)
        eventually(lambda: counted(site) == expected, 60)
        assert (node.main, recorder_of(node)) == (main, recorder)

    bad = sorted(task_id for each in ids for task_id in each["fail"])
    for table in ("deadletter", "taskrun"):
        found = rows(site, f"SELECT task_id FROM unstuck_{table}")
        assert sorted(task_id for (task_id,) in found) == bad
    assert counted(site) == expected
    assert timed(site) == sum(expected)
    assert rows(site, "SELECT kind, what FROM unstuck_incident") == []
    missing = rows(site, "SELECT facts_dropped, facts_left_out FROM unstuck_node")
    assert missing == [(0, 0)]
    assert not site.queue_lengths("unstuck.dead")["unstuck.dead"]


def is_felt(node: Node, before: int) -> bool:
    """Whether the recorder has complained once more."""
    return node.log().count(FELT) > before


def archived(site: Site) -> int:
    """How many letters have rows."""
    [(number,)] = rows(site, "SELECT count(*) FROM unstuck_deadletter")
    return int(number)


def counted(site: Site) -> tuple[int, int]:
    """How many runs ended well, and how many did not."""
    [sums] = rows(
        site,
        "SELECT coalesce(sum(succeeded), 0), coalesce(sum(failed), 0) "
        "FROM unstuck_taskminute",
    )
    return int(sums[0]), int(sums[1])


def timed(site: Site) -> int:
    """How many runs are known by how long they took."""
    found = rows(site, "SELECT runtimes FROM unstuck_taskminute")
    return Histogram.of(runtimes for (runtimes,) in found).total


def test_a_postgresql_that_fails_slows_the_archive_alone(
    postgresql_archive: MakeSite, postgres: PostgreSQL
) -> None:
    """Tasks go on; no process is taken for stalled; all is written once when it can be."""
    faults = [stopped, hanging, read_only, locked, full, terminated]
    random.shuffle(faults)
    print([fault.__name__ for fault in faults])

    bear(postgresql_archive(), *[partial(fault, postgres=postgres) for fault in faults])


def test_a_sqlite_that_fails_slows_the_archive_alone(sqlite_archive: MakeSite) -> None:
    """The same with a file that is locked, and with a disk that is full."""
    site = sqlite_archive()
    with closing(sqlite3.connect(file_of(site))) as file:
        # Larger than the log, which the recorder writes as well.
        file.execute("CREATE TABLE filler AS SELECT zeroblob(8000000)")

    bear(site, locked_file, no_room)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_recorder_without_tables_says_once_what_to_do(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """No database is away. When they are made it says that it is over."""
    site = request.getfixturevalue(f"{kind}_archive")()
    site.manage("migrate", "unstuck", "zero")
    with site.node() as node:
        eventually(lambda: 'so="others do the chores"' in node.log(), 20)
        time.sleep(8)
        told = [line for line in node.log().splitlines() if "got no further" in line]
        [chores] = [line for line in told if "others do the chores" in line]
        assert "away=tables" in chores
        assert 'do="manage.py migrate unstuck --database default"' in chores
        reasons = [line.partition("so=")[2].partition(" seconds=")[0] for line in told]
        assert len(reasons) == len(set(reasons))

        site.manage("migrate", "unstuck")

        over = ": WARNING/recorder] The recorder gets on again with what had failed"
        eventually(lambda: node.log().count(over) == len(reasons), 40)
