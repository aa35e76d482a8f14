"""Locks in a database of a test's own, beside the database of the project."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connections

from tests.contract.lock_places import Place
from tests.settings import database as django_database
from unstuck.core.settings import DATABASE_LOCKS
from unstuck.locks import sessions
from unstuck.locks.database import DatabaseBackend

_numbers = count(1)

UNSYNCED = {"init_command": "PRAGMA synchronous = OFF"}
"""As PostgreSQL in tests: the machine does not crash."""


@contextmanager
def alias_for(url: str, **more: Any) -> Iterator[str]:
    """That database under an alias of its own; all its connections are closed."""
    # Threads that outlive a test have a connection of the old alias in mind.
    alias = f"locks{next(_numbers)}"
    if url.startswith("sqlite"):
        more = {"OPTIONS": UNSYNCED, **more}
    entry = {"default": {**django_database(url), **more}}
    connections.settings[alias] = connections.configure_settings(entry)["default"]
    try:
        yield alias
    finally:
        if hasattr(connections._connections, alias):
            connections[alias].close()
            del connections[alias]
        del connections.settings[alias]


@contextmanager
def backend_on(url: str, blocker: Any, **more: Any) -> Iterator[DatabaseBackend]:
    """Locks there, with connections that are kept as they are outside of tests."""
    with (
        pytest.MonkeyPatch.context() as patch,
        blocker.unblock(),
        alias_for(url, **more) as alias,
    ):
        patch.setattr(sessions, "_in_tests", lambda: False)
        backend = DatabaseBackend(alias)
        try:
            yield backend
        finally:
            backend.close()


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_database: Path) -> str:
    """An SQLite file with our tables."""
    path = tmp_path / "locks.sqlite3"
    shutil.copy(migrated_database, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgresql_for_locks(postgres: Any, migrated_postgresql: str) -> str:
    """A PostgreSQL database with our tables, for one test after the other."""
    return str(postgres.database(migrated_postgresql).url)


@pytest.fixture
def postgresql_url(postgres: Any, postgresql_for_locks: str) -> str:
    """The same with nobody and nothing in it."""
    with psycopg.connect(postgresql_for_locks, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DELETE FROM unstuck_lock")
        connection.execute("DELETE FROM unstuck_lockwaiter")
    return postgresql_for_locks


@pytest.fixture
def sqlite_locks(sqlite_url: str, django_db_blocker: Any) -> Iterator[DatabaseBackend]:
    """Locks in SQLite."""
    with backend_on(sqlite_url, django_db_blocker) as backend:
        yield backend


@pytest.fixture
def postgresql_locks(
    postgresql_url: str, django_db_blocker: Any
) -> Iterator[DatabaseBackend]:
    """Locks in PostgreSQL."""
    with backend_on(postgresql_url, django_db_blocker) as backend:
        yield backend


@pytest.fixture
def locks_in_sqlite(
    sqlite_url: str, settings: Any, django_db_blocker: Any
) -> Iterator[Place]:
    """Locks in a file."""
    yield from _place(sqlite_url, settings, django_db_blocker)


@pytest.fixture
def locks_in_postgresql(
    postgresql_url: str, settings: Any, django_db_blocker: Any
) -> Iterator[Place]:
    """Locks in a database of their own."""
    yield from _place(postgresql_url, settings, django_db_blocker)


def _place(url: str, settings: Any, blocker: Any) -> Iterator[Place]:
    with backend_on(url, blocker) as backend:
        settings.UNSTUCK = {"DATABASE": backend.alias}
        yield Place(url=DATABASE_LOCKS, environment={"UNSTUCK_TEST_DATABASE_URL": url})


@pytest.fixture(params=["sqlite", "postgresql"])
def database_locks(request: pytest.FixtureRequest) -> DatabaseBackend:
    """Locks in each database in turn."""
    backend: DatabaseBackend = request.getfixturevalue(f"{request.param}_locks")
    return backend
