"""Checks of the ``UNSTUCK`` setting."""

from __future__ import annotations

from typing import Any

import pytest

from unstuck.checks.unstuck_settings import (
    unknown_database,
    unknown_keys,
    unusable_export,
    unusable_policy,
    unusable_target,
    unusable_tracing,
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


@pytest.mark.parametrize("path", [None, "os.path.join"])
def test_a_policy_that_can_be_called_is_no_error(path: Any) -> None:
    """E009 is silent for a function, and without one."""
    assert list(unusable_policy({"DASHBOARD_POLICY": path})) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("os.path.sep", "it cannot be called"),
        ("os.no_such", "does not define"),
        ("no_such_module.policy", "No module named"),
        ("policy", "doesn't look like a module path"),
    ],
)
def test_a_policy_that_cannot_be_used_is_an_error(path: str, words: str) -> None:
    """E009 says why, and that nobody gets in until then."""
    (message,) = unusable_policy({"DASHBOARD_POLICY": path})

    assert message.id == "unstuck.E009"
    assert words in message.msg
    assert "closed to everybody" in str(message.hint)


SECRET = "https://hooks.example/T0/s3cret"


def test_alerts_are_checked_without_giving_a_web_address_away() -> None:
    """E002 names the place, the value and what was meant."""
    (message,) = wrong_values({"ALERTS": [{"to": SECRET, "one": ["node_lost"]}]})

    assert message.id == "unstuck.E002"
    assert "UNSTUCK['ALERTS'][0]: 'one' is not a key" in message.msg
    assert "Did you mean 'on'?" in message.msg
    (message,) = wrong_values({"ALERTS": SECRET})
    assert "s3cret" not in message.msg


@pytest.mark.parametrize("to", ["os.path.join", SECRET, "mailto:ops@example.com"])
def test_an_alert_that_can_be_sent_is_no_error(to: str) -> None:
    """E010 is silent for it."""
    assert list(unusable_target({"ALERTS": [{"to": to}]})) == []


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("nowhere.alerts.tell", "No module named 'nowhere'"),
        ("os.path", "cannot be called"),
    ],
)
def test_an_alert_that_cannot_be_called_is_an_error(to: str, words: str) -> None:
    """E010 says why; what has other problems is left to E002."""
    (message,) = unusable_target({"ALERTS": [{"to": to}]})

    assert message.id == "unstuck.E010"
    assert words in message.msg
    assert list(unusable_target({"ALERTS": [{"to": to, "of": []}]})) == []


@pytest.mark.parametrize("value", [False, True, "os.path.join"])
def test_an_export_that_can_be_done_is_no_error(value: bool | str) -> None:
    """E012 is silent for it, and where there is none."""
    assert list(unusable_export({"METRICS_EXPORT": value})) == []
    assert list(unusable_export({})) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.exporter", "No module named 'nowhere'"),
        ("os.path", "cannot be called"),
    ],
)
def test_an_export_by_what_cannot_be_called_is_an_error(path: str, words: str) -> None:
    """E012 says why; what is of the wrong type is left to E002."""
    (message,) = unusable_export({"METRICS_EXPORT": path})

    assert message.id == "unstuck.E012"
    assert words in message.msg
    assert list(unusable_export({"METRICS_EXPORT": 7})) == []


def test_an_export_without_opentelemetry_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what to install."""
    monkeypatch.setattr("unstuck.tracing.is_installed", lambda: False)

    (message,) = unusable_export({"METRICS_EXPORT": True})

    assert "OpenTelemetry is not installed" in message.msg
    assert "unstuck[otel]" in str(message.hint)


@pytest.mark.parametrize("value", [False, True, "tests.project.tracing.provider", 7])
def test_tracing_that_can_be_done_is_no_error(value: Any) -> None:
    """E011 leaves values of the wrong type to E002."""
    assert list(unusable_tracing({"TRACING": value})) == []


def test_tracing_by_what_cannot_be_called_is_an_error() -> None:
    """E011 says why."""
    (message,) = unusable_tracing({"TRACING": "nowhere.tracing.provider"})

    assert message.id == "unstuck.E011"
    assert "No module named 'nowhere'" in message.msg


def test_tracing_without_opentelemetry_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E011 says what to install."""
    monkeypatch.setattr("unstuck.tracing.is_installed", lambda: False)

    (message,) = unusable_tracing({"TRACING": True})

    assert 'Install "unstuck[otel]"' in str(message.hint)
