"""What a killed or interrupted task leaves behind in the database: nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.crash.traces import pid_of, send, worker
from tests.node import Site
from tests.processes import alive
from tests.services import Database, PostgreSQL
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


@pytest.fixture
def site(valkey: Any, migrated: Database, tmp_path: Path) -> Site:
    """A site whose Django database is PostgreSQL."""
    valkey.flush()
    return Site(
        directory=tmp_path,
        broker=valkey.url(0),
        results=valkey.url(1),
        database=migrated.url,
        # Each task has but the soft limit that it gives itself.
        settings={"CELERY_TASK_SOFT_TIME_LIMIT": None},
    )


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


def test_queries_and_locks_of_a_killed_task_are_gone(
    site: Site, migrated: Database
) -> None:
    """Within 2 seconds, at a hard limit as when the process is killed from outside."""
    with worker(site, "-c", "2"):
        limited = send(site, "hold_a_row", "one")
        killed = send(site, "hold_a_row_for_long", "two")
        eventually(lambda: len(sleepers(migrated)) == 2, 20)
        assert not is_free(migrated, "one")
        assert not is_free(migrated, "two")

        eventually(lambda: not alive([pid_of(site, limited)]), 20)
        eventually(lambda: is_free(migrated, "one"), PROMISED_SECONDS + SLACK_SECONDS)
        eventually(lambda: len(sleepers(migrated)) == 1, SLACK_SECONDS)

        os.kill(pid_of(site, killed), signal.SIGKILL)
        eventually(lambda: is_free(migrated, "two"), PROMISED_SECONDS + SLACK_SECONDS)
        letter = site.letter(limited)

    assert letter["reason"] == "hard_limit"
    assert letter["waiting_for"].startswith("read on 127.0.0.1:")
    assert "in _sleep_in_the_database  <-- here" in letter["stack"]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("query_beyond_soft_limit", []),
        ("transaction_beyond_soft_limit", ["one"]),
    ],
)
def test_after_a_soft_limit_the_next_task_has_a_connection(
    site: Site, migrated: Database, name: str, args: list[str]
) -> None:
    """The interrupted one is closed, and its query and its locks are gone."""
    with worker(site, "-c", "1"), site.client() as app:
        interrupted = send(site, name, *args)
        letter = site.letter(interrupted)
        after = send(site, "is_connected")
        assert site.result(app, after) is True
        assert pid_of(site, after) == pid_of(site, interrupted)
        eventually(lambda: not sleepers(migrated), PROMISED_SECONDS + SLACK_SECONDS)
        assert is_free(migrated, "one")

    assert letter["reason"] == "soft_limit"


def test_a_task_that_catches_its_soft_limit_has_a_connection(site: Site) -> None:
    """It goes on with the same connection of Django's, which connects anew."""
    with worker(site, "-c", "1"), site.client() as app:
        assert site.result(app, send(site, "query_until_soft_limit")) is True
