"""What a killed or interrupted task leaves behind in the database: nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.crash.traces import finish, pid_of, send, worker
from tests.node import Site
from tests.processes import alive
from tests.services import Database, PostgreSQL
from tests.sites import MakeSite
from tests.waiting import eventually

PROMISED_SECONDS = 2
SLACK_SECONDS = 3
"""For a machine that is busy with other things."""


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
def site(module_site: MakeSite, migrated: Database) -> Iterator[Site]:
    """A site whose Django database is PostgreSQL, with a worker that has one slot."""
    # Each task has but the soft limit that it gives itself.
    site = module_site(migrated.url, CELERY_TASK_SOFT_TIME_LIMIT=None)
    with worker(site, "-c", "1"):
        yield site


def sleepers(base: Database) -> list[Any]:
    """The sessions of the database that are in a `pg_sleep`."""
    with psycopg.connect(base.url) as connection:
        return connection.execute(
            "SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event = 'PgSleep'"
        ).fetchall()


def is_free(base: Database, name: str) -> bool:
    """Whether nobody holds the lock of this row."""
    with psycopg.connect(base.url) as connection:
        found = connection.execute(
            "SELECT 1 FROM auth_group WHERE name = %s FOR UPDATE SKIP LOCKED", [name]
        )
        return found.fetchone() is not None


def test_queries_and_locks_are_gone_after_a_hard_limit(
    site: Site, migrated: Database
) -> None:
    """Within 2 seconds after the process was killed."""
    task_id = send(site, "hold_a_row", "one")
    eventually(lambda: sleepers(migrated), 20)
    assert not is_free(migrated, "one")

    eventually(lambda: not alive([pid_of(site, task_id)]), 20)
    check_nothing_is_left(migrated, "one")

    letter = site.letter(task_id)
    assert letter["reason"] == "hard_limit"
    assert letter["waiting_for"].startswith("read on 127.0.0.1:")
    assert "in _sleep_in_the_database  <-- here" in letter["stack"]


def test_queries_and_locks_are_gone_after_a_kill_from_outside(
    site: Site, migrated: Database
) -> None:
    """The process had no time for anything."""
    task_id = send(site, "hold_a_row_for_long", "two")
    eventually(lambda: sleepers(migrated), 20)
    assert not is_free(migrated, "two")

    os.kill(pid_of(site, task_id), signal.SIGKILL)
    check_nothing_is_left(migrated, "two")

    assert site.letter(task_id)["reason"] == "poison"


@pytest.mark.parametrize(
    ("name", "args"),
    [("query_beyond_soft_limit", []), ("transaction_beyond_soft_limit", ["one"])],
)
def test_after_a_soft_limit_the_next_task_has_a_connection(
    site: Site, migrated: Database, name: str, args: list[str]
) -> None:
    """The interrupted one is closed, and its query and its locks are gone."""
    interrupted = send(site, name, *args)
    letter = site.letter(interrupted)
    after = send(site, "is_connected")

    assert finish(site, [after]) == [True]
    assert pid_of(site, after) == pid_of(site, interrupted)
    check_nothing_is_left(migrated, "one")
    assert letter["reason"] == "soft_limit"


def test_a_task_that_catches_its_soft_limit_has_a_connection(site: Site) -> None:
    """It goes on with the same connection of Django's, which connects anew."""
    assert finish(site, [send(site, "query_until_soft_limit")]) == [True]


def check_nothing_is_left(base: Database, name: str) -> None:
    """The row is free and nobody sleeps, as soon as was promised."""
    eventually(lambda: is_free(base, name), PROMISED_SECONDS + SLACK_SECONDS)
    eventually(lambda: not sleepers(base), SLACK_SECONDS)
