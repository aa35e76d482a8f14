"""The exceptions of unstuck."""

from __future__ import annotations

import pytest

import unstuck
from unstuck.core import errors


@pytest.mark.parametrize(
    "cls", [errors.SettingsError, errors.ReplayError, errors.BrokerUnreachable]
)
def test_all_errors_can_be_caught_as_one(cls: type[Exception]) -> None:
    """Whatever unstuck itself raises is an UnstuckError."""
    assert issubclass(cls, errors.UnstuckError)


@pytest.mark.parametrize(
    "name",
    [
        "UnstuckError",
        "SettingsError",
        "ReplayError",
        "BrokerUnreachable",
        "LockError",
        "LockBusy",
        "LockLost",
        "DeadlockDetected",
        "LocksUnreachable",
    ],
)
def test_errors_are_public_names(name: str) -> None:
    """A project imports them from the top."""
    assert getattr(unstuck, name) is getattr(errors, name)
    assert name in unstuck.__all__


def test_a_settings_error_reads_one_problem_a_line() -> None:
    """The problems are kept apart and told together."""
    error = errors.SettingsError(["first", "second"])

    assert error.problems == ("first", "second")
    assert str(error) == "first\nsecond"


def test_an_error_of_a_lock_says_which_lock() -> None:
    """And what only that one knows: who holds it, who waits for whom."""
    busy = errors.LockBusy("busy", name="report", holder="somebody")
    circle = errors.DeadlockDetected("all wait", name="report", cycle=["a", "b"])

    assert (busy.name, busy.holder, str(busy)) == ("report", "somebody", "busy")
    assert (circle.name, circle.cycle) == ("report", ("a", "b"))
