"""Django's connections in a child that may be interrupted or killed at any moment.

- A killed child's SQL does not live on: PostgreSQL notices within about a second that
  its client is gone, drops the query and frees its locks.
- A query that is interrupted leaves its connection closed, never half-used.
- With ``STATEMENT_TIMEOUT``, PostgreSQL ends a query at the hard limit of its task.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.utils import DatabaseErrorWrapper

from unstuck import conf
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

CHECK_CLIENT = "SET client_connection_check_interval = '1s'"
CHECKS_CLIENT_SINCE = 140000

OWN_TIMEOUT = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"

LONGEST_TIMEOUT_MS = 2**31 - 1

SAME_DEADLINE_SECONDS = 0.1
"""Deadlines so close are the same, as far as a query is concerned."""

# What libpq, and so either driver, calls PQTRANS_IDLE and PQTRANS_ACTIVE.
IDLE, ACTIVE = 0, 1

HardLimit = Callable[[], float | None]
"""The seconds that the running task has left; ``None``: no task, or no limit."""


def install(hard_limit: HardLimit) -> None:
    """Prepare all connections of this process, of every alias and thread.

    For a freshly forked child, where Django is set up.
    """
    timeouts = Timeouts(hard_limit) if conf.current().statement_timeout else None

    def prepare(connection: BaseDatabaseWrapper, **_: Any) -> None:
        _close_when_interrupted(connection)
        if connection.vendor == "postgresql":
            _let_server_check_client(connection)
            if timeouts is not None:
                timeouts.follow_in(connection)

    connection_created.connect(prepare, weak=False, dispatch_uid=__name__)
    # The first interruption may come before the signal, while it connects.
    for connection in connections.all(initialized_only=True):
        _close_when_interrupted(connection)


def _let_server_check_client(connection: BaseDatabaseWrapper) -> None:
    # No parameter of the connection: pgbouncer would refuse it.
    if connection.connection.info.server_version >= CHECKS_CLIENT_SINCE:
        _execute(connection, CHECK_CLIENT)


def _close_when_interrupted(connection: BaseDatabaseWrapper) -> None:
    # Nothing interrupts SQLite: what is raised meanwhile waits for its answer.
    if connection.vendor != "sqlite":
        # Every call of the driver goes through this: queries, fetches, commits.
        # execute_wrappers see queries only.
        connection.wrap_database_errors = Guard(connection)


class Guard(DatabaseErrorWrapper):
    """Closes a connection that was interrupted, beside what it does for Django.

    psycopg would go on to wait for the answer, and refuse whatever comes next
    ("another command is already in progress").
    """

    wrapper: BaseDatabaseWrapper

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection if it is an interruption that leaves the call."""
        interruption = _interruption_behind(exc_value, self.wrapper)
        if interruption is None:
            super().__exit__(exc_type, exc_value, traceback)
            return
        _close(self.wrapper)
        if interruption is not exc_value:
            raise interruption


def _interruption_behind(
    error: BaseException | None, connection: BaseDatabaseWrapper
) -> BaseException | None:
    if error is None or _is_interruption(error):
        return error
    # psycopg's executemany() stumbles over an interruption and raises an error of its
    # own, in a connection that still waits. Without the latter, the interruption is
    # one that the task has caught, and this the error of a later query.
    if _state_of(connection) != ACTIVE:
        return None
    while error is not None and not _is_interruption(error):
        error = error.__context__
    return error


def _is_interruption(error: BaseException) -> bool:
    if isinstance(error, SoftTimeLimitExceeded):
        return True
    # GeneratorExit is how an iterator over rows ends that nobody needs any more.
    return not isinstance(error, (Exception, GeneratorExit))


def _close(connection: BaseDatabaseWrapper) -> None:
    # In an atomic block Django then refuses further queries until the block is left.
    try:
        connection.close()
    except Exception:
        logger.debug(
            "A connection was not closed properly: %(fields)s",
            Fields(connection=connection),
            exc_info=True,
        )


class Timeouts:
    """Lets ``statement_timeout`` follow the hard limit of the task that runs.

    A shorter one of the project's own stays in force, and so does one that the task
    sets itself.
    """

    def __init__(self, hard_limit: HardLimit) -> None:
        self._hard_limit = hard_limit
        self._sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()

    def follow_in(self, connection: BaseDatabaseWrapper) -> None:
        """Begin, unless it was begun with an earlier session of this connection."""
        if self._before_query not in connection.execute_wrappers:
            # Not as the last: connection.execute_wrapper() takes that away.
            connection.execute_wrappers.insert(0, self._before_query)

    def _before_query(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        self._adjust(context["connection"])
        return execute(sql, params, many, context)

    def _adjust(self, connection: BaseDatabaseWrapper) -> None:
        # A transaction keeps what it began with: its rollback would undo a change.
        if _state_of(connection) != IDLE:
            return
        left = self._hard_limit()
        session = self._session_of(connection)
        if not session.follows(left):
            _execute(connection, session.follow(left))

    def _session_of(self, connection: BaseDatabaseWrapper) -> Session:
        session = self._sessions.get(connection.connection)
        if session is None:
            (own,) = _execute(connection, OWN_TIMEOUT) or ("0",)
            session = Session(own_ms=int(own))
            self._sessions[connection.connection] = session
        return session


@dataclass(slots=True)
class Session:
    """The ``statement_timeout`` of one session of the server."""

    own_ms: int
    """What it was when first seen; 0 is no timeout."""

    deadline: float | None = None
    """The hard limit that it follows; ``None``: it is its own."""

    def follows(self, left: float | None) -> bool:
        """Whether it is right for a task with so many seconds left."""
        if left is None or self.deadline is None:
            return left is self.deadline
        return abs(time.monotonic() + left - self.deadline) < SAME_DEADLINE_SECONDS

    def follow(self, left: float | None) -> str:
        """The statement that makes it right."""
        self.deadline = None if left is None else time.monotonic() + left
        milliseconds = self.own_ms
        if left is not None:
            milliseconds = min(max(1, round(left * 1000)), LONGEST_TIMEOUT_MS)
            milliseconds = min(milliseconds, self.own_ms or milliseconds)
        return f"SET statement_timeout = {milliseconds}"


def _state_of(connection: BaseDatabaseWrapper) -> int | None:
    """What its driver says of its transaction, where it says so."""
    if connection.vendor != "postgresql" or connection.connection is None:
        return None
    state: int = connection.connection.info.transaction_status
    return state


def _execute(connection: BaseDatabaseWrapper, statement: str) -> Any:
    """Execute a statement of ours and return its row; ``None`` if it fails.

    Neither opens a transaction nor leaves one broken. The cursor is the driver's own:
    execute_wrappers do not hear of it.
    """
    driver = connection.connection
    autocommit = driver.autocommit
    try:
        with connection.wrap_database_errors:
            driver.autocommit = True
            try:
                with driver.cursor() as cursor:
                    cursor.execute(statement)
                    return cursor.fetchone() if cursor.description else None
            finally:
                driver.autocommit = autocommit
    except Error:
        logger.debug(
            "A database does not take a statement: %(fields)s",
            Fields(connection=connection, statement=statement),
            exc_info=True,
        )
        return None
