"""Checks of the ``UNSTUCK`` setting."""

from __future__ import annotations

from typing import Any

import pytest

from unstuck.checks.unstuck_settings import (
    keys_without_effect,
    unknown_database,
    unknown_keys,
    wrong_values,
)
from unstuck.core.settings import SETTINGS


def test_an_unknown_key_is_an_error_with_the_one_that_was_meant() -> None:
    """E001 names the key, the value and the remedy."""
    (message,) = unknown_keys({"MAX_STRIKE": 3})

    assert message.id == "unstuck.E001"
    assert "UNSTUCK['MAX_STRIKE'] = 3" in message.msg
    assert "'MAX_STRIKES'" in message.msg


def test_known_keys_are_no_error() -> None:
    """E001 is silent for every key in the table."""
    given = {setting.key: setting.default for setting in SETTINGS}

    assert list(unknown_keys(given)) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"MAX_STRIKES": "3"}, "UNSTUCK['MAX_STRIKES'] = '3' must be a whole number"),
        ({"REDACT": "password"}, "must be a list of strings"),
        ([], "UNSTUCK = [] must be a dict"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(given: Any, words: str) -> None:
    """E002 says what the value must be."""
    (message,) = wrong_values(given)

    assert message.id == "unstuck.E002"
    assert words in message.msg


def test_the_defaults_are_values_that_can_be_used() -> None:
    """E002 is silent for them, and leaves unknown keys to E001."""
    given = {setting.key: setting.default for setting in SETTINGS}

    assert list(wrong_values({**given, "MAX_STRIKE": 3})) == []


def test_a_database_that_does_not_exist_is_an_error() -> None:
    """E006 names those that do."""
    (message,) = unknown_database({"DATABASE": "other"}, {"default": {}, "log": {}})

    assert message.id == "unstuck.E006"
    assert "'other'" in message.msg
    assert "default, log" in str(message.hint)


@pytest.mark.parametrize("given", [{}, {"DATABASE": "log"}, {"DATABASE": 7}])
def test_a_database_that_exists_is_no_error(given: dict[str, Any]) -> None:
    """E006 leaves values of the wrong type to E002."""
    assert list(unknown_database(given, {"default": {}, "log": {}})) == []


def test_a_key_that_does_nothing_yet_is_a_warning() -> None:
    """W002: nobody shall rely on it."""
    idle = [setting.key for setting in SETTINGS if not setting.acts]
    given = dict.fromkeys(idle)

    assert [message.id for message in keys_without_effect(given)] == [
        "unstuck.W002"
    ] * len(idle)


def test_a_key_that_acts_is_no_warning() -> None:
    """W002 is silent for it, and for unknown keys."""
    assert list(keys_without_effect({"MAX_STRIKES": 5, "MAX_STRIKE": 3})) == []
