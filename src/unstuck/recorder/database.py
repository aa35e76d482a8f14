"""The recorder's own way with the database: bounded, and as new after every error.

A database that is away, slow, locked or read-only makes the recorder wait and try again,
and never long enough for the supervisor to take it for stalled.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

from django.db import (
    DataError,
    Error,
    IntegrityError,
    OperationalError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from unstuck import conf
from unstuck.worker.database import Guard

M = TypeVar("M", bound=Model)

ANSWER_SECONDS = 15.0
STATEMENT_SECONDS = 10.0
LOCK_SECONDS = 5.0
CONNECT_SECONDS = 5
ALARM_AGAIN_SECONDS = 2.0
"""What follows an alarm, a rollback for one, may hang as well."""

MOST_AGE_SECONDS = 60
"""A connection is opened anew that often: a proxy or a failover moves it by then."""

POSTGRESQL: Mapping[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
"""How libpq notices that the server's host is gone. What the project says wins."""

SET_BOUNDS = """
SELECT set_config(name, least(nullif(own, 0), most)::bigint::text, true)
FROM (VALUES ('statement_timeout', %s), ('lock_timeout', %s),
             ('idle_in_transaction_session_timeout', %s)) AS ours (name, most),
     LATERAL (SELECT 1000 * extract(epoch FROM current_setting(name)::interval)) AS now (own)
"""
"""For this transaction only: behind a proxy, the next one is somebody else's.

Milliseconds; what the project has set shorter stays. (The view of all settings would have
them as numbers, and takes four times as long.)
"""

OF_THE_ROW = frozenset({"22", "23", "54"})
"""Classes of SQLSTATE: bad data, a constraint, more than the server can hold in a row."""

NO_TABLE = frozenset({"42P01", "42703"})
"""SQLSTATE of a table, and of a column, that is not there."""

NO_TABLE_IN_SQLITE = ("no such table", "no such column", "has no column named")


class NoAnswer(BaseException):
    """The time is up in which a server that is well answers."""


class _Alarm:
    is_ours = False
    """Whether this process has no other use for SIGALRM."""

    armed = False

    def __call__(self, _signal: int, frame: FrameType | None) -> None:
        # On the way between a `with` and its generator nothing would catch it. The next
        # one comes soon.
        if self.armed and not _is_between(frame):
            raise NoAnswer

    def arm(self) -> None:
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, _answer_seconds(), ALARM_AGAIN_SECONDS)

    def disarm(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_between(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_globals is vars(contextlib)


_alarm = _Alarm()


def leave_connections_to_parent() -> None:
    """Have none, in a process that was forked from one that may have some."""
    for connection in connections.all(initialized_only=True):
        # Closing it would end the session of the other process, too.
        connection.connection = None


def prepare() -> None:
    """Make this process's connection a recorder's. For a process that is nothing else."""
    connection = connections[conf.current().database]
    ours = connection.settings_dict
    ours["AUTOCOMMIT"] = True  # Without it no transaction of ours is ever committed.
    ours["CONN_HEALTH_CHECKS"] = True
    ours["CONN_MAX_AGE"] = ours.get("CONN_MAX_AGE") or MOST_AGE_SECONDS
    ours["OPTIONS"] = _options(connection.vendor, ours.get("OPTIONS") or {})
    if connection.vendor == "postgresql":
        signal.signal(signal.SIGALRM, _alarm)
        _alarm.is_ours = True


def _options(vendor: str, own: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(own)
    if vendor == "postgresql":
        # One connection needs no pool, whose threads a fork would leave behind.
        options.pop("pool", None)
        return {**POSTGRESQL, **options}
    if vendor == "sqlite":
        # A transaction that reads first and writes then would not wait for its turn.
        options["transaction_mode"] = "IMMEDIATE"
        options["timeout"] = min(options.get("timeout", LOCK_SECONDS), _lock_seconds())
    return options


@contextmanager
def writing() -> Iterator[str]:
    """A transaction on the database of our tables, whose alias it yields.

    Ends within about 15 seconds, also where the server gives no answer. After an error
    that is not of a row, the connection is closed: the next one may find another server.
    """
    alias = conf.current().database
    connection = connections[alias]
    connection.close_if_unusable_or_obsolete()
    try:
        with _deadline(connection), transaction.atomic(using=alias):
            _set_bounds(connection)
            yield alias
    except NoAnswer as error:
        _alarm.disarm()  # It may have come while it was armed or disarmed.
        _abandon(connection)
        message = f"The server gave no answer within {_answer_seconds():g} s"
        raise OperationalError(message) from error
    except Exception as error:
        if not is_of_the_row(error):
            connection.close()
        raise


def is_of_the_row(error: BaseException) -> bool:
    """Whether another row could be written: the database is well, and this one is odd."""
    if not isinstance(error, Error):
        return not isinstance(error, (OSError, MemoryError))
    if isinstance(error, (DataError, IntegrityError)):
        return True
    return sqlstate(error)[:2] in OF_THE_ROW


def sqlstate(error: BaseException) -> str:
    """What PostgreSQL calls it; empty where it is no error of PostgreSQL."""
    # psycopg and psycopg2 have different names for it, SQLite has none.
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""


def lacks_tables(error: BaseException) -> bool:
    """Whether the database is there, and tables or columns of ours are not."""
    if not isinstance(error, Error):
        return False
    said = str(error)
    return sqlstate(error) in NO_TABLE or any(it in said for it in NO_TABLE_IN_SQLITE)


def remedy(error: BaseException) -> dict[str, str]:
    """Fields for the log that say what to do, where that is known."""
    if not lacks_tables(error):
        return {}
    return {"do": f"manage.py migrate unstuck --database {conf.current().database}"}


def insert_new(alias: str, key: str, rows: Sequence[M]) -> None:
    """Write rows, each once by its ``key``: one that is there stays as it is.

    Whatever else keeps a row out is an error. (``ignore_conflicts`` is not enough for
    that: SQLite's ``INSERT OR IGNORE`` leaves out a row that breaks any constraint.)
    """
    # Each once: PostgreSQL refuses to update a row twice.
    by_key = {getattr(row, key): row for row in rows}
    upsert(alias, [key], list(by_key.values()), [key])


def upsert(
    alias: str, key: Sequence[str], rows: Sequence[M], fields: Sequence[str]
) -> None:
    """Write rows; of one that is there by its ``key``, update these fields."""
    if not rows:
        return
    features = connections[alias].features
    names_target = features.supports_update_conflicts_with_target
    type(rows[0])._default_manager.using(alias).bulk_create(
        rows,
        update_conflicts=True,
        update_fields=fields,
        unique_fields=key if names_target else None,
    )


@contextmanager
def _deadline(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Raise ``NoAnswer`` when it takes too long, in a process that is prepared for it."""
    if not _alarm.is_ours:
        yield
        return
    # It closes what an alarm has interrupted, so that no rollback is waited for.
    connection.wrap_database_errors = Guard(connection)
    _alarm.arm()
    try:
        yield
    finally:
        _alarm.disarm()


def _abandon(connection: BaseDatabaseWrapper) -> None:
    """Have the next transaction begin with another object, whatever this one is at.

    An alarm comes between any two steps, and Django's bookkeeping of a transaction is
    many steps.
    """
    session = connection.connection
    with suppress(Exception):
        connection.close()
    if session is not None:
        with suppress(Exception):
            session.close()
    del connections[connection.alias]


def _set_bounds(connection: BaseDatabaseWrapper) -> None:
    if connection.vendor == "postgresql":
        bounds = (_statement_seconds(), _lock_seconds(), _answer_seconds())
        with connection.cursor() as cursor:
            cursor.execute(SET_BOUNDS, [int(seconds * 1000) for seconds in bounds])


def _answer_seconds() -> float:
    return min(ANSWER_SECONDS, conf.current().stall_seconds / 2)


def _statement_seconds() -> float:
    return min(STATEMENT_SECONDS, conf.current().stall_seconds / 3)


def _lock_seconds() -> float:
    return min(LOCK_SECONDS, conf.current().stall_seconds / 6)
