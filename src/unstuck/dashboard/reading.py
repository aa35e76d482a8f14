"""Reading from the database for a page: bounded, whatever state the database is in."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db import (
    DatabaseError,
    InterfaceError,
    ProgrammingError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper

from unstuck import conf
from unstuck.recorder.database import SET_BOUNDS, lacks_tables, sqlstate

logger = logging.getLogger(__name__)

T = TypeVar("T")

STATEMENT_SECONDS = 3.0
LOCK_SECONDS = 1.0
PAGE_SECONDS = 5.0
"""All parts of a page together; what comes later is not asked for."""

STEPS = 10_000
"""Of SQLite's machine between two looks at the clock: well under a millisecond."""

TOO_SLOW = frozenset({"57014", "55P03"})
"""SQLSTATE of a statement that was cancelled, and of a lock that was not had in time."""

INTERRUPTED = frozenset({"interrupted", "database is locked"})
"""The same in SQLite's words."""


class NotRead(Exception):
    """The database did not tell; ``why`` is ``slow``, ``away`` or ``unmigrated``."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """What a part of a page shows, or why it shows nothing."""

    value: T | None = None
    problem: str = ""


class Parts:
    """The parts of one page, each read on its own: what is well is shown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + PAGE_SECONDS

    def read(self, ask: Callable[[], T]) -> Part[T]:
        """What ``ask`` returns; a slow one leaves less time to the next.

        Raises ``NotRead`` when there is no database to ask.
        """
        left = self._until - self._clock()
        if left <= 0:
            return Part(problem="slow")
        try:
            with reading(min(left, STATEMENT_SECONDS)):
                return Part(ask())
        except NotRead as error:
            if error.why != "slow":
                raise
            return Part(problem=error.why)


@contextmanager
def reading(seconds: float = STATEMENT_SECONDS) -> Iterator[str]:
    """The alias of the database of our tables, each statement of which is bounded.

    Raises ``NotRead`` when the database is away, too slow, or has no tables of ours.
    """
    alias = conf.current().database
    connection = connections[alias]
    try:
        with _bounded(connection, seconds):
            yield alias
    except (DatabaseError, InterfaceError) as error:
        logger.warning("The dashboard could not read", exc_info=True)
        raise NotRead(why_of(error)) from error


def why_of(error: BaseException) -> str:
    """What an error of the database says of it: ``slow``, ``unmigrated`` or ``away``."""
    if sqlstate(error) in TOO_SLOW or str(error) in INTERRUPTED:
        return "slow"
    if lacks_tables(error) or isinstance(error, ProgrammingError):
        return "unmigrated"
    return "away"


@contextmanager
def _bounded(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        with _bounded_sqlite(connection.connection, seconds):
            yield
    elif connection.vendor == "postgresql":
        # For this transaction only: the connection is the project's.
        with transaction.atomic(using=connection.alias):
            bounds = (seconds, LOCK_SECONDS, 2 * PAGE_SECONDS)
            with connection.cursor() as cursor:
                cursor.execute(SET_BOUNDS, [int(bound * 1000) for bound in bounds])
            yield
    else:
        yield


@contextmanager
def _bounded_sqlite(session: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """No transaction: where the project makes them IMMEDIATE, it would lock writers out."""
    until = time.monotonic() + seconds
    (patience,) = session.execute("PRAGMA busy_timeout").fetchone()
    shorter = min(patience, int(LOCK_SECONDS * 1000))
    session.execute(f"PRAGMA busy_timeout = {shorter}")
    session.set_progress_handler(lambda: int(time.monotonic() > until), STEPS)
    try:
        yield
    finally:
        session.set_progress_handler(None, STEPS)
        session.execute(f"PRAGMA busy_timeout = {patience}")
