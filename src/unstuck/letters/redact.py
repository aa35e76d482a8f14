"""Arguments as they may be shown and stored."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[redacted]"

MOST_BITS = 10_000
"""Of an integer; Python neither writes nor reads many more as a decimal number."""


def redacted_kwargs(kwargs: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The keyword arguments without the values whose names look secret, at any depth."""
    return _redacted(dict(kwargs), tuple(name.lower() for name in names))


def redacted_args(args: Iterable[Any], task: Any, names: Iterable[str]) -> list[Any]:
    """The positional arguments likewise, named by the signature of their task.

    A value that it has no name for, of a task that is not known here or has fewer
    parameters, is as good as secret.
    """
    lowered = tuple(name.lower() for name in names)
    values = list(args)
    return [
        REDACTED if _is_secret_there(name, lowered) else _redacted(value, lowered)
        for name, value in zip(_names_of(values, task), values, strict=True)
    ]


def storable(value: Any) -> Any:
    """``value`` as JSON that every database takes: no NUL, no NaN, no unknown types."""
    match value:
        case None | bool():
            return value
        case int():
            return value if value.bit_length() <= MOST_BITS else hex(value)
        case float():
            return value if math.isfinite(value) else repr(value)
        case str():
            return clean(value)
        case Mapping():
            return {clean(str(key)): storable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [storable(item) for item in value]
        case _:
            return clean(str(value))


def clean(text: str) -> str:
    """Text that every database takes."""
    sound = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return sound.replace("\x00", "\\x00")


def _redacted(value: Any, names: tuple[str, ...]) -> Any:
    match value:
        case Mapping():
            return {
                key: REDACTED if _is_secret(key, names) else _redacted(item, names)
                for key, item in value.items()
            }
        case list() | tuple():
            return [_redacted(item, names) for item in value]
        case _:
            return value


def _is_secret(name: Any, names: tuple[str, ...]) -> bool:
    lowered = str(name).lower()
    return any(secret in lowered for secret in names)


def _is_secret_there(name: str | None, names: tuple[str, ...]) -> bool:
    return bool(names) if name is None else _is_secret(name, names)


def _names_of(values: list[Any], task: Any) -> list[str | None]:
    """The name of the parameter that each positional value goes to; none if unknown."""
    try:
        parameters = list(inspect.signature(task.run).parameters.values())
    except (AttributeError, TypeError, ValueError):
        parameters = []
    names: list[str | None] = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return names + [parameter.name] * (len(values) - len(names))
        names.append(parameter.name)
    return (names + [None] * len(values))[: len(values)]
