"""What kind of value somebody gave."""

from __future__ import annotations

from typing import Any


def is_flag(value: Any) -> bool:
    """``True`` or ``False``."""
    return isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """A whole number; Python takes ``True`` for one."""
    return isinstance(value, int) and not is_flag(value)


def is_number(value: Any) -> bool:
    """Any number."""
    return is_whole(value) or isinstance(value, float)


def is_count(value: Any) -> bool:
    """A whole number, 0 or above."""
    return is_whole(value) and value >= 0


def is_seconds(value: Any) -> bool:
    """A number, 0 or above."""
    return is_number(value) and value >= 0
