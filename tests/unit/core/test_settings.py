"""The `UNSTUCK` setting: known keys, problems all at once, and what is in force."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.core import alerts
from unstuck.core.errors import SettingsError
from unstuck.core.settings import (
    BY_KEY,
    REDACTED_NAMES,
    RETENTION_DAYS,
    SETTINGS,
    Settings,
    parse,
    problems_in,
)

INTERFACE: dict[str, Any] = {
    "MAX_STRIKES": 3,
    "STRIKE_WINDOW_HOURS": 72,
    "RETRY_ON_SOFT_LIMIT": False,
    "RETRY_ON_HARD_LIMIT": False,
    "UNKNOWN_TASK_PATIENCE_SECONDS": 600,
    "LEASE_SECONDS": 5,
    "STALL_SECONDS": 30,
    "SPARES": 1,
    "PROBE_ADDRESS": None,
    "RUNTIME_DIR": None,
    "STATEMENT_TIMEOUT": False,
    "LOCK_URL": None,
    "DATABASE": "default",
    "RELEASE": None,
    "RECORD_SUCCESSES": False,
    "RETENTION_DAYS": {
        "letters": 90,
        "runs": 14,
        "minutes": 90,
        "incidents": 90,
        "nodes": 7,
        "samples": 90,
        "audit": 365,
        "outbox": 14,
    },
    "OUTBOX_LIMIT": 100_000,
    "REDACT": REDACTED_NAMES,
    "DASHBOARD_POLICY": None,
    "ALERTS": [],
    "METRICS": "queue",
    "METRICS_TOKEN": None,
    "METRICS_EXPORT": False,
    "LOGS": "plain",
    "TRACING": False,
}
"""The table of interface.md: keys and defaults."""

WRONG: dict[str, list[Any]] = {
    "MAX_STRIKES": [0, -1, 2.5, "3", True, None, []],
    "STRIKE_WINDOW_HOURS": [0, -1, "72", True, None, float("nan")],
    "RETRY_ON_SOFT_LIMIT": [1, 0, "yes", None],
    "RETRY_ON_HARD_LIMIT": [1, 0, "yes", None],
    "UNKNOWN_TASK_PATIENCE_SECONDS": [-1, "600", False, None, float("nan")],
    "LEASE_SECONDS": [0, "5", None],
    "STALL_SECONDS": [0, "30", None],
    "SPARES": [-1, 1.5, True, None],
    "PROBE_ADDRESS": ["", 8000, ("h", 1), "8001", ":8001", "h:", "h:70000", "h:-1"],
    "RUNTIME_DIR": ["", 1],
    "STATEMENT_TIMEOUT": [30, None],
    "LOCK_URL": [
        *("", 1, "amqp://h", "redis:", "redis://", "databases", ["database"]),
        *("redis://h:six/0", "redis://h:65536", "sentinel://a:1;sentinel://b:0"),
    ],
    "DATABASE": ["", None, 1],
    "RELEASE": [7, ""],
    "RECORD_SUCCESSES": [1, None],
    "RETENTION_DAYS": [
        7,
        None,
        {"letter": 7},
        {"letters": 0},
        {"letters": None},
        {"letters": True},
    ],
    "OUTBOX_LIMIT": [0, -1, 1.5, "9", True, None],
    "DASHBOARD_POLICY": ["", 1, ["proj.policy"]],
    "REDACT": ["password", None, [1], [""], {"a": 1}],
    "ALERTS": [{}, None, "https://hooks.example"],  # More in test_alerts.
    "METRICS": ["", None, "tasks", True, ["task"]],
    "METRICS_EXPORT": ["", "otlp", None, 1],
    "METRICS_TOKEN": ["", 7, b"0123456789abcdef", True],  # More below.
    "LOGS": ["", "text", None, ["json"]],
    "TRACING": [None, 1, "", "provider"],
}
RIGHT: dict[str, list[Any]] = {
    "MAX_STRIKES": [1, 10],
    "STRIKE_WINDOW_HOURS": [0.5, 24],
    "RETRY_ON_SOFT_LIMIT": [True],
    "RETRY_ON_HARD_LIMIT": [True],
    "UNKNOWN_TASK_PATIENCE_SECONDS": [0, 1.5],
    "LEASE_SECONDS": [2.5],
    "STALL_SECONDS": [60],
    "SPARES": [0, 4],
    "PROBE_ADDRESS": ["0.0.0.0:8001", "[::1]:8001", "localhost:0"],
    "RUNTIME_DIR": ["/run/shop"],
    "STATEMENT_TIMEOUT": [True],
    "LOCK_URL": [
        None,
        "database",
        "redis://127.0.0.1:6379/1",
        "unstuck+rediss://u:p@host/0?ssl_cert_reqs=CERT_NONE",
        "redis+socket:///run/redis.sock",
        "sentinel://a:1/0;sentinel://b:2/0",
    ],
    "DATABASE": ["unstuck"],
    "RELEASE": ["2026.11.1", None],
    "RECORD_SUCCESSES": [True],
    "RETENTION_DAYS": [{}, {"letters": 0.5}, {"runs": 1, "audit": 3650}],
    "OUTBOX_LIMIT": [1, 10**9],
    "DASHBOARD_POLICY": ["proj.ops.policy"],
    "REDACT": [[], ("iban",), {"iban"}, frozenset({"iban"})],
    "ALERTS": [[{"to": "mailto:ops@example.com"}], ()],
    "METRICS": ["node", "queue", "task"],
    "METRICS_EXPORT": [True, "proj.telemetry.exporter"],
    "METRICS_TOKEN": [None, "0123456789abcdef"],
    "LOGS": ["plain", "json"],
    "TRACING": [False, True, "shop.tracing.provider"],
}

IN_FORCE: dict[str, Callable[[Any], Any]] = {
    "REDACT": tuple,
    "RETENTION_DAYS": lambda value: {**RETENTION_DAYS, **value},
    "ALERTS": alerts.targets,
}
"""What becomes of a value that is not taken as it is."""


def pairs(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    """Each value with its key."""
    return [(key, value) for key, values in table.items() for value in values]


def test_every_key_of_the_interface_is_known_with_its_default() -> None:
    """The table of interface.md, no more and no less."""
    assert {setting.key: setting.default for setting in SETTINGS} == INTERFACE


def test_every_default_passes_its_own_check() -> None:
    """What we say in place of the project is right."""
    assert problems_in({row.key: row.default for row in SETTINGS}) == []


def test_an_empty_setting_gives_the_defaults() -> None:
    """`UNSTUCK = {}`: the dataclass says the same as the table."""
    settings = parse({})

    for field in dataclasses.fields(Settings):
        assert getattr(settings, field.name) == BY_KEY[field.name.upper()].default


@pytest.mark.parametrize(("key", "value"), pairs(RIGHT))
def test_a_right_value_is_taken(key: str, value: Any) -> None:
    """Right values make no problem, and are in force."""
    settings = parse({key: value})

    assert problems_in({key: value}) == []
    in_force = getattr(settings, key.lower())
    assert in_force == IN_FORCE.get(key, lambda value: value)(value)


@pytest.mark.parametrize(("key", "value"), pairs(WRONG))
def test_a_wrong_value_is_named_with_its_key_and_the_remedy(
    key: str, value: Any
) -> None:
    """What, which value, what to do."""
    (problem,) = problems_in({key: value})

    assert f"UNSTUCK[{key!r}] = {value!r} must " in problem
    assert repr(BY_KEY[key].default) in problem


def test_both_tables_of_this_test_cover_every_key() -> None:
    """A new setting needs its right and wrong values here."""
    assert set(RIGHT) == set(WRONG) == set(BY_KEY)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("MAX_STRIKE", "MAX_STRIKES"),
        ("max_strikes", "MAX_STRIKES"),
        ("RETENTION_DAY", "RETENTION_DAYS"),
        ("PROBE_ADRESS", "PROBE_ADDRESS"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(
    key: str, meant: str
) -> None:
    """Did you mean …?"""
    (problem,) = problems_in({key: 1})

    assert f"UNSTUCK[{key!r}] = 1 is not a setting" in problem
    assert f"Did you mean {meant!r}?" in problem


@pytest.mark.parametrize("token", ["too-short", "0123456789 abcdef", "0123456789abcdé"])
@pytest.mark.parametrize("key", ["METRICS_TOKEN", "METRIC_TOKEN"])
def test_a_token_is_never_shown(key: str, token: str) -> None:
    """Neither one that is wrong, nor one whose key is."""
    (problem,) = problems_in({key: token})

    assert "METRICS_TOKEN" in problem
    assert "[redacted]" in problem
    assert token not in problem


@pytest.mark.parametrize("key", ["ZZZ", 7, None, ("a", "b")])
def test_an_unknown_key_like_no_other_is_answered_with_all(key: Any) -> None:
    """Where nothing is near, all keys are named."""
    (problem,) = problems_in({key: 1})

    assert "Did you mean" not in problem
    assert all(known in problem for known in BY_KEY)


@pytest.mark.parametrize("given", [None, [], "MAX_STRIKES=3", 7, [("MAX_STRIKES", 3)]])
def test_unstuck_must_be_a_dict(given: Any) -> None:
    """Anything else is one problem, not a crash."""
    (problem,) = problems_in(given)

    assert f"UNSTUCK = {given!r} must be a dict" in problem


def test_all_problems_are_told_at_once() -> None:
    """Nobody corrects settings one restart at a time."""
    wrong = {"MAX_STRIKES": 0, "SPARE": 1, "REDACT": "password", "DATABASE": "default"}

    with pytest.raises(SettingsError) as raised:
        parse(wrong)

    assert raised.value.problems == tuple(problems_in(wrong))
    assert len(raised.value.problems) == 3


def test_retention_names_what_can_be_kept() -> None:
    """The remedy lists the known kinds."""
    (problem,) = problems_in({"RETENTION_DAYS": {"tasks": 1}})

    assert all(kind in problem for kind in RETENTION_DAYS)


@given(st.dictionaries(st.sampled_from(sorted(BY_KEY)) | st.text(), st.from_type(type)))
def test_settings_either_parse_or_have_problems(given: dict[str, Any]) -> None:
    """There is no third way: whatever is given, a crash is not among the answers."""
    problems = problems_in(given)

    if problems:
        with pytest.raises(SettingsError):
            parse(given)
    else:
        assert isinstance(parse(given), Settings)


@pytest.mark.parametrize(
    "key", ["STRIKE_WINDOW_HOURS", "UNKNOWN_TASK_PATIENCE_SECONDS"]
)
@pytest.mark.parametrize("value", [float("inf"), 1e15])
def test_a_time_that_no_clock_can_hold_is_a_problem(key: str, value: float) -> None:
    """Told at the start, not as an OverflowError at the first message."""
    assert problems_in({key: value})


def test_the_kind_of_log_that_was_meant_is_named() -> None:
    """As with keys."""
    (problem,) = problems_in({"LOGS": "jsn"})

    assert "must be 'plain' or 'json'. Did you mean 'json'?" in problem
