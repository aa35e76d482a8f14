"""The ``UNSTUCK`` setting: one table, checked as a whole."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from unstuck.core import alerts
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

# Settings have names like "global_keyprefix" that hold no secret.
SECRET_SETTINGS = tuple(name for name in REDACTED_NAMES if name != "key")

RETENTION_DAYS = {
    "letters": 90,
    "runs": 14,
    "minutes": 90,
    "incidents": 90,
    "nodes": 7,
    "samples": 90,
    "audit": 365,
    "outbox": 14,
}

TIERS = ("node", "queue", "task")
"""How finely metrics tell apart what happened."""

SHORTEST_TOKEN = 16
"""Characters: what is shorter can be guessed."""

DATABASE_LOCKS = "database"
"""The ``LOCK_URL`` of locks that are kept in the Django database."""

_REDIS_URL = re.compile(
    r"(unstuck\+)?(redis|rediss|sentinel|unix|socket|redis\+socket)://[^\s;]"
)

MOST = 1_000_000
"""Hours, seconds or days: more than anybody means, and less than a clock can hold."""

MOST_PORT = 65_535

LOG_KINDS = ("plain", "json")
"""What a line of the log may be."""

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


def _one_of(*known: str) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        if value in known:
            return None
        near = difflib.get_close_matches(str(value).lower(), known, n=1)
        return f"must be {' or '.join(map(repr, known))}" + (
            f". Did you mean {near[0]!r}?" if near else ""
        )

    return problem


def _flag_or_path(value: Any) -> str | None:
    good = isinstance(value, bool) or (isinstance(value, str) and "." in value)
    return None if good else "must be True, False or the dotted path of a function"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be True or False"


def _text(value: Any) -> str | None:
    good = isinstance(value, str) and bool(value)
    return None if good else "must be a string that is not empty"


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _optional_address(value: Any) -> str | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    good = host and port.isdecimal() and int(port) <= MOST_PORT
    return None if good else 'must be "HOST:PORT", as in "0.0.0.0:8001"'


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


def _optional_token(value: Any) -> str | None:
    good = value is None or (
        isinstance(value, str)
        and len(value) >= SHORTEST_TOKEN
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )
    return (
        None
        if good
        else (
            f"must be a string of at least {SHORTEST_TOKEN} ASCII characters without "
            "spaces, as `openssl rand -hex 32` prints one"
        )
    )


def _lock_url(value: Any) -> str | None:
    good = value in (None, DATABASE_LOCKS) or (
        isinstance(value, str) and _REDIS_URL.match(value)
    )
    if good and value and not all(map(_has_good_port, value.split(";"))):
        return f"must name a port from 1 to {MOST_PORT}, or none"
    return (
        None
        if good
        else (
            f"must be the URL of a Redis, or {DATABASE_LOCKS!r}. "
            'Write for example "redis://127.0.0.1:6379/1"'
        )
    )


def _has_good_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of ``UNSTUCK``."""

    key: str
    default: Any
    check: Check
    is_secret: bool = False

    def shown(self, value: Any) -> Any:
        """A value, right or wrong, as it may be shown."""
        if self.is_secret and isinstance(value, str) and value:
            return "[redacted]"
        return alerts.shown(value)


SETTINGS: tuple[Setting, ...] = (
    Setting("MAX_STRIKES", 3, _positive_integer),
    Setting("STRIKE_WINDOW_HOURS", 72, _positive),
    Setting("RETRY_ON_SOFT_LIMIT", False, _flag),
    Setting("RETRY_ON_HARD_LIMIT", False, _flag),
    Setting("UNKNOWN_TASK_PATIENCE_SECONDS", 600, _not_negative),
    Setting("LEASE_SECONDS", 5, _positive),
    Setting("STALL_SECONDS", 30, _positive),
    Setting("SPARES", 1, _count),
    Setting("PROBE_ADDRESS", None, _optional_address),
    Setting("RUNTIME_DIR", None, _optional_text),
    Setting("STATEMENT_TIMEOUT", False, _flag),
    Setting("LOCK_URL", None, _lock_url),
    Setting("DATABASE", "default", _text),
    Setting("OUTBOX_LIMIT", 100_000, _positive_integer),
    Setting("RELEASE", None, _optional_text),
    Setting("RECORD_SUCCESSES", False, _flag),
    Setting("RETENTION_DAYS", RETENTION_DAYS, _days),
    Setting("REDACT", REDACTED_NAMES, _names),
    Setting("DASHBOARD_POLICY", None, _optional_text),
    Setting("ALERTS", [], _list),
    Setting("METRICS", "queue", _one_of(*TIERS)),
    Setting("METRICS_EXPORT", False, _flag_or_path),
    Setting("METRICS_TOKEN", None, _optional_token, is_secret=True),
    Setting("LOGS", "plain", _one_of(*LOG_KINDS)),
    Setting("TRACING", False, _flag_or_path),
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
    probe_address: str | None = None
    runtime_dir: str | None = None
    statement_timeout: bool = False
    lock_url: str | None = None
    database: str = "default"
    outbox_limit: int = 100_000
    release: str | None = None
    record_successes: bool = False
    retention_days: Mapping[str, float] = field(
        default_factory=lambda: dict(RETENTION_DAYS)
    )
    redact: tuple[str, ...] = REDACTED_NAMES
    dashboard_policy: str | None = None
    alerts: Sequence[alerts.Target] = field(default_factory=list)
    metrics: str = "queue"
    metrics_export: bool | str = False
    metrics_token: str | None = None
    logs: str = "plain"
    tracing: bool | str = False


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
                f"UNSTUCK[{key!r}] = {setting.shown(value)!r} {wrong}. "
                f"Correct it, or remove it for the default {setting.default!r}."
            )
        elif key == "ALERTS":
            problems.extend(alerts.problems_in(value))
    return problems


def _unknown(key: Any, value: Any) -> str:
    near = difflib.get_close_matches(str(key).upper(), BY_KEY, n=1)
    value = BY_KEY[near[0]].shown(value) if near else value
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
        key.lower(): _in_force(key, value) for key, value in given.items()
    }
    return Settings(**values)


def _in_force(key: str, value: Any) -> Any:
    match key:
        case "REDACT":
            return tuple(value)
        case "RETENTION_DAYS":
            return {**RETENTION_DAYS, **value}
        case "ALERTS":
            return alerts.targets(value)
        case _:
            return value
