"""Duties: each with a backoff of its own."""

from __future__ import annotations

from itertools import pairwise

import pytest
from django.db import InterfaceError, OperationalError

from unstuck.recorder.duty import Duty


class Work:
    """Fails as often as it is told to."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)

    def __call__(self) -> bool:
        if self.errors and (error := self.errors.pop(0)):
            raise error
        return True


class Clock:
    """Stands still until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_turn_says_whether_there_is_more() -> None:
    """As the work says itself."""
    assert Duty(lambda: True, "it waits").turn() is True
    assert Duty(lambda: False, "it waits").turn() is False


def test_after_a_failure_there_is_a_pause() -> None:
    """Which doubles with each further failure, up to half a minute."""
    work, clock = Work(*[OSError("gone")] * 8), Clock()
    duty = Duty(work, "it waits", clock)
    tries = []
    while work.errors:
        left = len(work.errors)
        assert duty.turn() is False
        if len(work.errors) < left:
            tries.append(clock.now)
        clock.now += 0.5

    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_success_ends_the_backoff() -> None:
    """The next failure waits but a second again."""
    gone = OSError("gone")
    work, clock = Work(gone, gone, None, gone), Clock()
    duty = Duty(work, "it waits", clock)
    duty.turn()
    clock.now += 1
    duty.turn()
    clock.now += 2
    assert duty.turn() is True
    assert duty.turn() is False

    clock.now += 1

    assert duty.turn() is True


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (OperationalError("gone"), "database"),
        (InterfaceError("gone"), "database"),
        (ConnectionRefusedError("gone"), "broker"),
    ],
)
def test_the_log_says_what_is_away_and_what_waits(
    caplog: pytest.LogCaptureFixture, error: Exception, where: str
) -> None:
    """One line, with the error and when it is tried again."""
    Duty(Work(error), "letters wait on the broker").turn()

    (record,) = caplog.records
    assert record.getMessage() == (
        f"The recorder got no further, which is tried again: away={where} "
        f'so="letters wait on the broker" seconds=1.0 error="{type(error).__name__}: '
        f'gone"'
    )
