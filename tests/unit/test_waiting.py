"""Waiting without sleeping and hoping."""

from __future__ import annotations

import pytest

from tests.waiting import eventually


def test_the_first_true_value_is_returned() -> None:
    """Falsy values and failed assertions mean "not yet"."""
    values = iter([0, AssertionError("no"), "", "yes"])

    def probe() -> object:
        value = next(values)
        if isinstance(value, AssertionError):
            raise value
        return value

    assert eventually(probe) == "yes"


def test_what_never_comes_fails_with_the_last_value() -> None:
    """The failure says what was seen last."""
    with pytest.raises(AssertionError, match=r"still 0 after 0\.05 s"):
        eventually(lambda: 0, seconds=0.05)


def test_the_last_failed_assertion_is_the_failure() -> None:
    """An assertion that never holds is shown as it is."""

    def probe() -> None:
        raise AssertionError("two is not three")

    with pytest.raises(AssertionError, match="two is not three"):
        eventually(probe, seconds=0.05)
