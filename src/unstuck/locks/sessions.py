"""Connections of our own to the project's database: short transactions, with bounds.

A lock must be seen by all at once and outlive a rollback, so it is never written with
the connection, and in the transaction, of whoever takes it.
"""

from __future__ import annotations

import copy
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.core import mail
from django.db import Error, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

ANSWER_SECONDS = 5.0
"""A server that says nothing for so long is given up."""

IDLE_SECONDS = 30.0
BUSY_SECONDS = 4.0
BUSY_IN_TRANSACTION_SECONDS = 1.0
"""So long SQLite is asked again, also where the caller himself may be the writer."""

POSTGRESQL: Mapping[str, Any] = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""How libpq notices that the server's host is gone. What the project says wins."""

_inherited: list[Any] = []
"""What a fork has copied, and only the parent may use or close. Kept for ever: whoever
collects a connection closes it."""


class InTransaction(Exception):
    """SQLite has one writer, which may be the transaction that the caller is in."""


class Line:
    """One connection, whose transactions end in time: its own watch cuts it else."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.is_new = True
        self.idle_since = 0.0
        self.was_cut = False
        self._socket: socket.socket | None = None
        self._watch: threading.Timer | None = None

    def begin(self, statements: Sequence[str]) -> None:
        """Connect if need be, and begin a transaction."""
        self.connection.ensure_connection()
        if self.connection.vendor == "postgresql":
            self._start_watch()
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def end(self) -> None:
        """The transaction was committed."""
        if self._watch is not None:
            self._watch.cancel()
        self.is_new, self.idle_since = False, time.monotonic()

    def close(self) -> None:
        """End it, whatever it is at: the server rolls back."""
        if self._watch is not None:
            self._watch.cancel()
        with suppress(Exception):
            self.connection.close()
        if self._socket is not None:
            self._socket.close()

    def _start_watch(self) -> None:
        if self._socket is None:
            # A descriptor of its own never comes to mean another file.
            descriptor = os.dup(self.connection.connection.fileno())
            self._socket = socket.socket(fileno=descriptor)
        self._watch = threading.Timer(ANSWER_SECONDS, self._cut)
        self._watch.daemon = True
        self._watch.start()

    def _cut(self) -> None:
        self.was_cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class Sessions:
    """Connections to one database, shared by all threads of this process.

    Each is one thread's at a time. They are closed when they are not used for a while,
    and after any error; a forked process begins with none.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._idle: list[Line] = []
        self._begin_anew()
        weakref.finalize(self, _close_all, self._idle)
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(reference))

    def _begin_anew(self) -> None:
        self._mutex = threading.RLock()  # A signal's handler may take locks, too.
        self._sweeper: threading.Timer | None = None

    @property
    def vendor(self) -> str:
        """Which kind of database it is."""
        return str(connections[self.alias].vendor)

    @contextmanager
    def transaction(self, begin: str) -> Iterator[Any]:
        """A cursor within a transaction, which is committed at the end of the block.

        Raises Django's ``Error`` within seconds, and ``InTransaction``.
        """
        if self._in_memory():
            # Nobody else can see it anyway, and any other connection finds it locked.
            own = connections[self.alias]
            with transaction.atomic(using=self.alias), own.cursor() as cursor:
                yield cursor
            return
        line = self._begun(begin)
        with self._closed_after_errors(line), line.connection.cursor() as cursor:
            yield cursor
            cursor.execute("COMMIT")
        self._give_back(line)

    def _begun(self, begin: str) -> Line:
        while True:
            line = self._taken()
            try:
                with self._closed_after_errors(line):
                    line.begin([*self._bounds(), begin])
            except Error:
                # The server may have been restarted while it was idle.
                if line.is_new or line.was_cut or self.vendor == "sqlite":
                    raise
            else:
                return line

    @contextmanager
    def _closed_after_errors(self, line: Line) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            line.close()
            if line.was_cut and isinstance(error, Error):
                message = f"the server gave no answer within {ANSWER_SECONDS:g} s"
                raise OperationalError(message) from error
            if "locked" in str(error) and self._caller_is_in_transaction():
                raise InTransaction from error
            raise

    def _taken(self) -> Line:
        with self._mutex:
            if self._idle:
                return self._idle.pop()
        connection = connections.create_connection(self.alias)
        connection.settings_dict = _ours(connections[self.alias])
        connection.inc_thread_sharing()
        return Line(connection)

    def _give_back(self, line: Line) -> None:
        if _in_tests():
            # Nobody could drop a test's database while we are in it.
            line.close()
            return
        line.end()
        with self._mutex:
            self._idle.append(line)
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = threading.Timer(IDLE_SECONDS, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        since = time.monotonic() - IDLE_SECONDS
        with self._mutex:
            old = [line for line in self._idle if line.idle_since <= since]
            self._idle[:] = self._idle[len(old) :]
            self._sweeper = None
            if self._idle:
                self._sweep_later()
        _close_all(old)

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._mutex:
            idle, self._idle[:] = list(self._idle), []
        _close_all(idle)

    def _in_memory(self) -> bool:
        own = connections[self.alias]
        return own.vendor == "sqlite" and bool(own.is_in_memory_db())  # type: ignore[attr-defined]

    def _bounds(self) -> Sequence[str]:
        if self.vendor != "sqlite":
            return ()
        within = self._caller_is_in_transaction()
        seconds = BUSY_IN_TRANSACTION_SECONDS if within else BUSY_SECONDS
        return (f"PRAGMA busy_timeout = {int(seconds * 1000)}",)

    def _caller_is_in_transaction(self) -> bool:
        """Whether this thread is in a transaction on the same SQLite file."""
        ours = connections[self.alias]
        return ours.vendor == "sqlite" and any(
            other.vendor == "sqlite"
            and other.settings_dict["NAME"] == ours.settings_dict["NAME"]
            and other.connection is not None
            and other.connection.in_transaction
            for other in connections.all(initialized_only=True)
        )


def _ours(project: BaseDatabaseWrapper) -> dict[str, Any]:
    ours = copy.deepcopy(project.settings_dict)
    options = ours.get("OPTIONS") or {}
    if project.vendor == "postgresql":
        options = {**POSTGRESQL, **options}
        # It has threads of its own, and waits in ways of its own.
        options.pop("pool", None)
        # Several statements at once, and one parameter at several places.
        options.pop("server_side_binding", None)
    if project.vendor == "sqlite":
        # The longest, and while it connects.
        options = {**options, "timeout": BUSY_SECONDS}
    return {**ours, "AUTOCOMMIT": True, "CONN_MAX_AGE": None, "OPTIONS": options}


def _in_tests() -> bool:
    """Whether Django's test environment is set up."""
    return hasattr(mail, "outbox")


def _close_all(lines: list[Line]) -> None:
    for line in lines:
        line.close()


def _forget(reference: weakref.ref[Sessions]) -> None:
    """In a forked child: leave the parent's connections alone."""
    sessions = reference()
    if sessions is not None:
        _inherited.extend(sessions._idle)
        sessions._idle.clear()
        sessions._begin_anew()
