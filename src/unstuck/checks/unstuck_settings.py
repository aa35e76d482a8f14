"""Rules for the ``UNSTUCK`` setting."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage, Error
from django.utils.module_loading import import_string

from unstuck import tracing
from unstuck.core import alerts
from unstuck.core.settings import BY_KEY, problems_in


def unknown_keys(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """E001: a key that is not a setting of unstuck."""
    for key, value in given.items():
        if key not in BY_KEY:
            for problem in problems_in({key: value}):
                yield Error(problem, obj="UNSTUCK", id="unstuck.E001")


def wrong_values(given: Any) -> Iterator[CheckMessage]:
    """E002: a value that a setting of unstuck cannot have."""
    if isinstance(given, Mapping):
        given = {key: value for key, value in given.items() if key in BY_KEY}
    for problem in problems_in(given):
        yield Error(problem, obj="UNSTUCK", id="unstuck.E002")


def unknown_database(
    given: Mapping[str, Any], databases: Collection[str]
) -> Iterator[CheckMessage]:
    """E006: ``DATABASE`` is not an alias in ``DATABASES``."""
    alias = given.get("DATABASE")
    if isinstance(alias, str) and alias and alias not in databases:
        yield Error(
            f"UNSTUCK['DATABASE'] = {alias!r} is not in DATABASES.",
            hint=f"Use one of {', '.join(databases)}, or add it to DATABASES.",
            obj="UNSTUCK",
            id="unstuck.E006",
        )


def unusable_policy(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """E009: ``DASHBOARD_POLICY`` is not the path of something that can be called."""
    path = given.get("DASHBOARD_POLICY")
    if not isinstance(path, str) or not path:
        return
    if problem := _problem_of(path):
        yield Error(
            f"UNSTUCK['DASHBOARD_POLICY'] = {path!r} cannot be used: {problem}.",
            hint="Give the dotted path of a function (request, permission) -> bool. "
            "Until then the dashboard is closed to everybody.",
            obj="UNSTUCK",
            id="unstuck.E009",
        )


def unusable_target(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """E010: a target of ``ALERTS`` is not the path of something that can be called."""
    value = given.get("ALERTS", [])
    if problems_in({"ALERTS": value}):
        return
    for target in alerts.targets(value):
        problem = "" if ":" in target.to else _problem_of(target.to)
        if problem:
            yield Error(
                f"The target {target.to!r} in UNSTUCK['ALERTS'] cannot be used: "
                f"{problem}.",
                hint="Give the dotted path of a function that takes one dict. Until "
                "then nobody is told there.",
                obj="UNSTUCK",
                id="unstuck.E010",
            )


def unusable_tracing(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """E011: ``TRACING`` without OpenTelemetry, or the path of nothing to call."""
    return _unusable_by_opentelemetry(
        given, "TRACING", "TracerProvider", "unstuck.E011"
    )


def unusable_export(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """E012: ``METRICS_EXPORT`` without OpenTelemetry, or the path of nothing to call."""
    return _unusable_by_opentelemetry(
        given, "METRICS_EXPORT", "MetricExporter", "unstuck.E012"
    )


def _unusable_by_opentelemetry(
    given: Mapping[str, Any], key: str, returned: str, check_id: str
) -> Iterator[CheckMessage]:
    value = given.get(key, False)
    if not value or problems_in({key: value}):
        return
    problem = "" if tracing.is_installed() else "OpenTelemetry is not installed"
    if not problem and isinstance(value, str):
        problem = _problem_of(value)
    if problem:
        yield Error(
            f"UNSTUCK[{key!r}] = {value!r} cannot be used: {problem}.",
            hint='Install "unstuck[otel]", and give True or the dotted path of a '
            f"function that returns a {returned}.",
            obj="UNSTUCK",
            id=check_id,
        )


def _problem_of(path: str) -> str:
    """Why nothing can be called by this path; empty when something can."""
    try:
        return "" if callable(import_string(path)) else "it cannot be called"
    except Exception as error:
        # The project's module: it may raise whatever it likes.
        return str(error) or type(error).__name__
