"""Deadlocks of the database: which errors say that trying again is the remedy."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import Error

STATES = frozenset({"40P01", "40001"})
"""SQLSTATE: deadlock detected, and a serialization failure."""

MYSQL_CODES = frozenset({1213, 1205})
"""Deadlock found, and the wait for a lock that was too long, which may be one."""


def is_database_deadlock(error: BaseException) -> bool:
    """Whether the database has ended a transaction so that another could go on.

    Also if the error comes from, or came up while handling, such an error. Not SQLite's
    "database is locked": no two wait for each other there.
    """
    return any(_is_deadlock(one) for one in _behind(error))


def _behind(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        if one.__cause__ is not None or one.__suppress_context__:
            one = one.__cause__
        else:
            one = one.__context__


def _is_deadlock(error: BaseException) -> bool:
    # psycopg, then psycopg2. Django's own errors have neither, but come from these.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str) and state in STATES:
        return True
    # A project's own error may have anything as its argument, also what has no hash.
    codes = [arg for arg in error.args[:1] if isinstance(arg, int)]
    return isinstance(error, Error) and not MYSQL_CODES.isdisjoint(codes)
