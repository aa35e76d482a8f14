"""Which errors are a deadlock of the database, and what a task makes of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from celery.exceptions import Ignore, Reject, Retry
from django.db import IntegrityError, OperationalError
from django.db.transaction import TransactionManagementError

from tests.unit.worker.projects import empty, project
from unstuck.worker.deadlocks import is_database_deadlock


def of_driver(cause: Exception, *args: Any) -> OperationalError:
    """An error of Django's, made of one of a driver's."""
    error = OperationalError(*args)
    error.__cause__ = cause
    return error


class OfPsycopg2(Exception):
    """As psycopg2 tells it."""

    pgcode = "40P01"


DEADLOCKS = [
    of_driver(psycopg.errors.DeadlockDetected("deadlock detected")),
    of_driver(psycopg.errors.SerializationFailure("could not serialize access")),
    of_driver(OfPsycopg2("deadlock detected")),
    OperationalError(1213, "Deadlock found when trying to get lock"),
    OperationalError(1205, "Lock wait timeout exceeded"),
    psycopg.errors.DeadlockDetected("of no Django"),
]


@pytest.mark.parametrize("error", DEADLOCKS, ids=str)
def test_it_is_told_by_its_code(error: Exception) -> None:
    """Of each driver that Django has, and without Django."""
    assert is_database_deadlock(error)


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("database is locked"),
        OperationalError(2006, "Server has gone away"),
        of_driver(psycopg.errors.LockNotAvailable("lock timeout")),
        of_driver(psycopg.errors.UniqueViolation("duplicate key")),
        ValueError(1213),
        OperationalError(),
        IntegrityError({"field": ["wrong"]}),
    ],
    ids=str,
)
def test_all_else_is_none(error: Exception) -> None:
    """SQLite's single writer included: no two wait for each other there."""
    assert not is_database_deadlock(error)


def raised(work: Callable[[], None]) -> Exception:
    """What comes out of it."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        work()
    return caught.value


def deadlock() -> OperationalError:
    """A new one."""
    return of_driver(psycopg.errors.DeadlockDetected("deadlock detected"))


@contextmanager
def translated(*, hides: bool = False) -> Iterator[None]:
    """Makes another error of whatever is raised."""
    try:
        yield
    except OperationalError:
        if hides:
            raise IntegrityError("something else") from None
        raise TransactionManagementError("the transaction is broken")


def test_what_comes_from_one_is_one() -> None:
    """Whatever the code around has made of it, unless it says that it is another."""

    def work(*, hides: bool = False) -> None:
        with translated(hides=hides):
            raise deadlock()

    assert is_database_deadlock(raised(work))
    assert not is_database_deadlock(raised(lambda: work(hides=True)))


def test_errors_that_come_from_each_other_have_an_end() -> None:
    """Python lets a chain be a ring."""
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first

    assert not is_database_deadlock(first)


@pytest.mark.parametrize(
    ("options", "error", "ending"),
    [
        ({}, deadlock(), OperationalError),
        ({"retry_on_deadlock": False}, deadlock(), OperationalError),
        ({"retry_on_deadlock": True}, deadlock(), Retry),
        ({"retry_on_deadlock": True, "max_retries": 0}, deadlock(), OperationalError),
        ({"retry_on_deadlock": True}, ValueError("no"), ValueError),
        ({"retry_on_deadlock": True}, Ignore(), Ignore),
        ({"retry_on_deadlock": True}, Reject(deadlock()), Reject),
    ],
)
def test_a_task_retries_it_where_it_says_so(
    options: dict[str, Any], error: Exception, ending: type[Exception]
) -> None:
    """Like a failure: after its own delay, while attempts are left."""
    app = project()

    @app.task(shared=False, default_retry_delay=7, **options)
    def work() -> None:
        raise error

    work.push_request(id="1", called_directly=False, retries=0, is_eager=False)
    try:
        with pytest.raises(ending) as caught:
            work()
    finally:
        work.pop_request()
        empty(app)

    if ending is Retry:
        assert caught.value.when == 7
        assert caught.value.exc is error
