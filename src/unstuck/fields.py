"""What varies in a line of the log, beside a text that is always the same.

``logger.warning("The lock is given back: %(fields)s", Fields(lock=name))`` reads ``The lock
is given back: lock=report:42`` whoever formats it, and a formatter finds the constant text
in ``record.msg`` and the fields in ``record.args``: lines of one kind are counted by it.
"""

from __future__ import annotations

import json
import re
from typing import Any

PLAIN = re.compile(r"[^\s\"'=\\]+")
"""Values that need no quotes to be told from what follows."""

TASK = ("task_name", "task_id")
PLACES = re.compile(r":? ?%\((?:fields|task)\)s")


class Fields(dict[str, Any]):
    """The fields of one line.

    Its text is constant and may have two places: ``%(fields)s``, at its end, and
    ``%(task)s``, where the task is named whose ``task_id`` and ``task_name`` are given.
    """

    def __missing__(self, place: str) -> str:
        if place == "task":
            return f"{self.get('task_name', '')}[{self['task_id']}]"
        if place == "fields":
            others = (pair for pair in self.items() if pair[0] not in TASK)
            return " ".join(f"{name}={quoted(value)}" for name, value in others)
        raise KeyError(place)


def quoted(value: Any) -> str:
    """A value in one line, in quotes where it needs them."""
    text = worded(value)
    if PLAIN.fullmatch(text) and text.isprintable():
        return text
    return json.dumps(text, ensure_ascii=False)


def worded(value: Any) -> str:
    """A value as text; an error says its kind, too."""
    text = said(value)
    if not isinstance(value, BaseException):
        return text
    name = type(value).__name__
    return f"{name}: {text.strip()}" if text.strip() else name


def said(value: Any) -> str:
    """What it says of itself. The line counts for more than what was put into it."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"


def constant(text: str) -> str:
    """The text of a line without the places of its fields."""
    return PLACES.sub("", text)
