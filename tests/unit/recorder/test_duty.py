"""Duties: each with a backoff of its own."""

from __future__ import annotations

from itertools import pairwise

import pytest
from django.db import InterfaceError, OperationalError, ProgrammingError

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
        (ProgrammingError("gone"), "database"),
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


def test_a_trouble_that_lasts_is_told_every_five_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And not at each try."""
    clock = Clock()
    duty = Duty(Work(*[OperationalError("gone")] * 99), "it waits", clock)
    told_at = []
    while clock.now < 1700:
        duty.turn()
        if caplog.messages:
            told_at.append(clock.now - 1000)
            caplog.clear()
        clock.now += 1

    # Each the first try after five minutes, with half a minute between two.
    assert told_at == [0, 301, 601]


def test_another_trouble_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the first line of its text, each once: what follows differs each time."""
    clock = Clock()
    refused, slow = OSError("refused"), OperationalError("no answer\nDETAIL: 1")
    slower = OperationalError("no answer\nDETAIL: 2")
    duty = Duty(Work(refused, slow, refused, slower), "it waits", clock)
    for _ in range(4):
        duty.turn()
        clock.now += 30

    assert [line.partition(" ")[0] for line in away(caplog)] == ["broker", "database"]


def test_the_end_of_a_trouble_is_told_as_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once; and who has read of the error reads of it. The next one is told again."""
    clock, gone = Clock(), OSError("gone")
    duty = Duty(Work(gone, gone, None, None, gone), "it waits", clock)
    duty.turn()
    clock.now += 1
    duty.turn()
    clock.now += 2.04
    duty.turn()
    duty.turn()
    duty.turn()

    assert [record.levelname for record in caplog.records] == [
        "ERROR",
        "WARNING",
        "ERROR",
    ]
    assert caplog.messages[1] == (
        'The recorder gets on again with what had failed: so="it waits" seconds=3.0'
    )


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("no such table: unstuck_lease", ""),
        ("no such column: unstuck_node.release", ""),
        ("table unstuck_node has no column named release", ""),
        ('relation "unstuck_lease" does not exist', "42P01"),
        ('Spalte "release" existiert nicht', "42703"),
    ],
)
def test_the_log_says_what_makes_tables_that_are_missing(
    caplog: pytest.LogCaptureFixture, said: str, state: str
) -> None:
    """The database is not away, and trying again helps nobody."""
    error = ProgrammingError(said) if state else OperationalError(said)
    error.__cause__ = Refusal(state)
    Duty(Work(error), "it waits").turn()

    [line] = away(caplog)
    assert line.startswith('tables so="it waits"')
    assert line.endswith(' do="manage.py migrate unstuck --database default"')


class Refusal(Exception):
    """What a driver of PostgreSQL raises."""

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


def away(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was away, by each line."""
    return [line.partition("away=")[2] for line in caplog.messages]
