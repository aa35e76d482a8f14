"""What a killed or interrupted task leaves behind in the database: nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.crash.traces import by_task, finish, pid_of, send, worker
from tests.node import Node, Site
from tests.processes import alive
from tests.services import Database, PostgreSQL, Valkey
from tests.sites import MakeSite
from tests.waiting import eventually

SECONDS = 5
"""Two are promised, the others are for a machine that is busy with other things."""


@pytest.fixture(scope="module")
def migrated(postgres: PostgreSQL, tmp_path_factory: Any) -> Iterator[Database]:
    """A database with all tables and a row for each task to hold."""
    base = postgres.database()
    directory = tmp_path_factory.mktemp("migrated")
    site = Site(directory=directory, broker="memory://", database=base.url)
    site.manage("migrate", "-v", "0")
    with psycopg.connect(base.url, autocommit=True) as connection:
        connection.execute("INSERT INTO auth_group (name) VALUES ('one'), ('two')")
    yield base
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [base.name],
        )


@pytest.fixture(scope="module")
def node(module_site: MakeSite, migrated: Database) -> Iterator[Node]:
    """A worker with one slot; none of its processes is ever killed."""
    site = module_site(migrated.url)
    with worker(site, "-c", "1") as node:
        yield node


def sleepers(base: Database) -> list[Any]:
    """The sessions of the database that are in a `pg_sleep`."""
    with psycopg.connect(base.url) as connection:
        return connection.execute(
            "SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event = 'PgSleep'"
        ).fetchall()


def is_held(base: Database, name: str) -> bool:
    """Whether somebody holds the lock of this row."""
    with psycopg.connect(base.url) as connection:
        found = connection.execute(
            "SELECT 1 FROM auth_group WHERE name = %s FOR UPDATE SKIP LOCKED", [name]
        )
        return found.fetchone() is None


def test_queries_and_locks_of_a_killed_task_are_gone(
    valkey: Valkey, tmp_path: Path, migrated: Database
) -> None:
    """Within 2 seconds, at a hard limit as when the process is killed from outside."""
    valkey.flush()
    site = Site(
        directory=tmp_path,
        broker=valkey.url(0),
        results=valkey.url(1),
        database=migrated.url,
        settings={"CELERY_TASK_SOFT_TIME_LIMIT": None},
    )
    with worker(site, "-c", "2"):
        limited = send(site, "hold_a_row", "one")
        killed = send(site, "hold_a_row_for_long", "two")
        eventually(lambda: is_held(migrated, "one"), 20)
        eventually(lambda: is_held(migrated, "two"), 20)

        os.kill(pid_of(site, killed), signal.SIGKILL)
        eventually(lambda: not is_held(migrated, "two"), SECONDS)
        eventually(lambda: not alive([pid_of(site, limited)]), 20)
        eventually(lambda: not is_held(migrated, "one"), SECONDS)
        eventually(lambda: not sleepers(migrated), SECONDS)
        letters = by_task(site, "DeadLetter", [limited, killed])

    assert letters[killed]["reason"] == "poison"
    assert letters[limited]["reason"] == "hard_limit"
    assert letters[limited]["waiting_for"].startswith("read on 127.0.0.1:")
    assert "in _sleep_in_the_database  <-- here" in letters[limited]["stack"]


@pytest.mark.parametrize(
    ("name", "args"),
    [("query_beyond_soft_limit", []), ("transaction_beyond_soft_limit", ["one"])],
)
def test_after_a_soft_limit_the_next_task_has_a_connection(
    node: Node, migrated: Database, name: str, args: list[str]
) -> None:
    """The interrupted one is closed, and its query and its locks are gone."""
    site = node.site
    interrupted = send(site, name, *args)
    letter = site.letter(interrupted)
    after = send(site, "is_connected")

    assert finish(site, [after]) == [True]
    assert pid_of(site, after) == pid_of(site, interrupted)
    eventually(lambda: not sleepers(migrated), SECONDS)
    assert not is_held(migrated, "one")
    assert letter["reason"] == "soft_limit"


def test_a_task_that_catches_its_soft_limit_has_a_connection(node: Node) -> None:
    """It goes on with the same connection of Django's, which connects anew."""
    assert finish(node.site, [send(node.site, "query_until_soft_limit")]) == [True]
