"""The ``UNSTUCK`` setting: one table, checked as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unstuck.core.errors import SettingsError

REDACTED_NAMES = (
    "password",
    "passwd",
    "secret",
    "token",
    "key",
    "authorization",
    "credential",
    "cookie",
)

RETENTION_DAYS = {
    "letters": 90,
    "runs": 14,
    "minutes": 90,
    "incidents": 90,
    "nodes": 7,
    "audit": 365,
    "outbox": 14,
}

MOST = 1_000_000
"""Hours, seconds or days: more than anybody means, and less than a clock can hold."""

Check = Callable[[Any], str | None]
"""Says what a value must be, or nothing when it is fine."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(value: Any) -> str | None:
    good = _is_number(value) and 0 < value <= MOST
    return None if good else f"must be a number above 0, at most {MOST}"


def _not_negative(value: Any) -> str | None:
    good = _is_number(value) and 0 <= value <= MOST
    return None if good else f"must be a number from 0 to {MOST}"


def _positive_integer(value: Any) -> str | None:
    good = _is_number(value) and isinstance(value, int) and value > 0
    return None if good else "must be a whole number above 0"


def _count(value: Any) -> str | None:
    good = _is_number(value) and isinstance(value, int) and value >= 0
    return None if good else "must be a whole number, 0 or above"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be True or False"


def _text(value: Any) -> str | None:
    good = isinstance(value, str) and bool(value)
    return None if good else "must be a string that is not empty"


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _names(value: Any) -> str | None:
    good = isinstance(value, (list, tuple, set, frozenset)) and all(
        isinstance(name, str) and name for name in value
    )
    return None if good else "must be a list of strings"


def _list(value: Any) -> str | None:
    return None if isinstance(value, (list, tuple)) else "must be a list"


def _days(value: Any) -> str | None:
    good = isinstance(value, Mapping) and all(
        name in RETENTION_DAYS and _positive(days) is None
        for name, days in value.items()
    )
    known = ", ".join(RETENTION_DAYS)
    return None if good else f"must map some of {known} to days above 0"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of ``UNSTUCK``."""

    key: str
    default: Any
    check: Check
    acts: bool = True
    """Whether this version already acts on it; if not, setting it is a warning."""


SETTINGS: tuple[Setting, ...] = (
    Setting("MAX_STRIKES", 3, _positive_integer),
    Setting("STRIKE_WINDOW_HOURS", 72, _positive),
    Setting("RETRY_ON_SOFT_LIMIT", False, _flag),
    Setting("RETRY_ON_HARD_LIMIT", False, _flag),
    Setting("UNKNOWN_TASK_PATIENCE_SECONDS", 600, _not_negative),
    Setting("LEASE_SECONDS", 5, _positive),
    Setting("STALL_SECONDS", 30, _positive),
    Setting("SPARES", 1, _count),
    Setting("PROBE_ADDRESS", None, _optional_text, acts=False),
    Setting("RUNTIME_DIR", None, _optional_text, acts=False),
    Setting("STATEMENT_TIMEOUT", False, _flag),
    Setting("LOCK_URL", None, _optional_text, acts=False),
    Setting("DATABASE", "default", _text),
    Setting("OUTBOX_LIMIT", 100_000, _positive_integer),
    Setting("RECORD_SUCCESSES", False, _flag, acts=False),
    Setting("RETENTION_DAYS", RETENTION_DAYS, _days),
    Setting("REDACT", REDACTED_NAMES, _names),
    Setting("ALERTS", [], _list, acts=False),
)

BY_KEY = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of ``UNSTUCK`` that are in force."""

    max_strikes: int = 3
    strike_window_hours: float = 72
    retry_on_soft_limit: bool = False
    retry_on_hard_limit: bool = False
    unknown_task_patience_seconds: float = 600
    lease_seconds: float = 5
    stall_seconds: float = 30
    spares: int = 1
    statement_timeout: bool = False
    database: str = "default"
    outbox_limit: int = 100_000
    retention_days: Mapping[str, float] = field(
        default_factory=lambda: dict(RETENTION_DAYS)
    )
    redact: tuple[str, ...] = REDACTED_NAMES


def problems_in(given: Any) -> list[str]:
    """Everything that is wrong with the value of ``UNSTUCK``, one line each."""
    if not isinstance(given, Mapping):
        return [f"UNSTUCK = {given!r} must be a dict. Use UNSTUCK = {{}} for defaults."]
    problems = []
    for key, value in given.items():
        setting = BY_KEY.get(key)
        if setting is None:
            problems.append(_unknown(key, value))
        elif wrong := setting.check(value):
            problems.append(
                f"UNSTUCK[{key!r}] = {value!r} {wrong}. "
                f"Correct it, or remove it for the default {setting.default!r}."
            )
    return problems


def _unknown(key: Any, value: Any) -> str:
    near = difflib.get_close_matches(str(key).upper(), BY_KEY, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(BY_KEY)}."
    return f"UNSTUCK[{key!r}] = {value!r} is not a setting of unstuck. {remedy}"


def parse(given: Any) -> Settings:
    """The settings in force.

    Raises ``SettingsError`` with every problem at once.
    """
    problems = problems_in(given)
    if problems:
        raise SettingsError(problems)
    values: dict[str, Any] = {
        key.lower(): _in_force(key, value)
        for key, value in given.items()
        if BY_KEY[key].acts
    }
    return Settings(**values)


def _in_force(key: str, value: Any) -> Any:
    match key:
        case "REDACT":
            return tuple(value)
        case "RETENTION_DAYS":
            return {**RETENTION_DAYS, **value}
        case _:
            return value
