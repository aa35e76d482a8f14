"""What a lock may be called, and how long one may wait for it and have it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

LONGEST_NAME = 255
SHORTEST_LEASE = 1.0
LONGEST_LEASE = 86_400.0
LONGEST_WAIT = 86_400.0


def checked_name(name: Any) -> str:
    """The name, if a lock can have it."""
    if not isinstance(name, str):
        raise TypeError(
            f"The name of a lock must be a string, and {name!r} is none. "
            "Write it out, for example lock(f'report:{user.pk}')."
        )
    if not name or not name.isprintable():
        raise ValueError(
            f"{name!r} cannot be the name of a lock: "
            "it must have at least one character, and only printable ones."
        )
    size = len(name.encode())
    if size > LONGEST_NAME:
        raise ValueError(
            f"The name of a lock can have {LONGEST_NAME} bytes, and {name[:40]!r}... has "
            f"{size}. Put a digest of what is long into it."
        )
    return name


def checked_names(names: Any) -> tuple[str, ...]:
    """The names, in the one order in which everybody takes them, each once."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(
            f"lock.many() takes a list of names, and {names!r} is none. "
            "For one lock write lock(name)."
        )
    wanted = tuple(sorted({checked_name(name) for name in names}))
    if not wanted:
        raise ValueError("lock.many() takes at least one name, and the list is empty.")
    return wanted


def checked_wait(seconds: Any) -> float:
    """For how long to wait, in seconds."""
    if not is_wait(seconds):
        raise ValueError(
            f"wait={seconds!r} must be a number of seconds from 0 to {LONGEST_WAIT:.0f}. "
            "With 0 a busy lock is not waited for."
        )
    return float(seconds)


def checked_lease(seconds: Any) -> float:
    """For how long a lock outlives its holder, in seconds."""
    if not is_lease(seconds):
        raise ValueError(
            f"lease={seconds!r} must be a number of seconds from {SHORTEST_LEASE:.0f} to "
            f"{LONGEST_LEASE:.0f}. It is renewed while its holder lives, so the default of "
            "30 fits work of any length."
        )
    return float(seconds)


def is_wait(seconds: Any) -> bool:
    """Whether one may wait for so long."""
    return _is_between(seconds, 0, LONGEST_WAIT)


def is_lease(seconds: Any) -> bool:
    """Whether a lease may be so long."""
    return _is_between(seconds, SHORTEST_LEASE, LONGEST_LEASE)


def _is_between(value: Any, least: float, most: float) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )
