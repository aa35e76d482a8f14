"""Rules for the ``UNSTUCK`` setting."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from unstuck import conf
from unstuck.core.settings import BY_KEY, problems_in


def messages() -> Iterator[CheckMessage]:
    """What these rules find in the settings of the project."""
    given = conf.given()
    yield from wrong_values(given)
    if isinstance(given, Mapping):
        yield from unknown_keys(given)
        yield from unknown_database(given, settings.DATABASES)
        yield from keys_without_effect(given)


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


def keys_without_effect(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """W002: a setting that is known but does nothing in this version."""
    for key, value in given.items():
        if key in BY_KEY and not BY_KEY[key].acts:
            yield Warning(
                f"UNSTUCK[{key!r}] = {value!r} does nothing yet in this version.",
                hint="Remove it, so that nobody relies on it.",
                obj="UNSTUCK",
                id="unstuck.W002",
            )
