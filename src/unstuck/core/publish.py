"""When a task is published: at once, or when the transaction that it belongs to commits.

Said by a call (``apply_async(publish=…)``), else by the task, else by the project
(``CELERY_TASK_PUBLISH``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

AT_ONCE = "at_once"
ON_COMMIT = "on_commit"
CHOICES = (AT_ONCE, ON_COMMIT)

_forced: ContextVar[bool] = ContextVar("unstuck_at_once", default=False)


@contextmanager
def at_once() -> Iterator[None]:
    """What is published within is published at once, whatever else is said.

    For what ends with an exception that rolls the transaction back: a retry would go
    with it, while the message that it comes from is acknowledged.
    """
    token = _forced.set(True)
    try:
        yield
    finally:
        _forced.reset(token)


def waits_for_commit(*said: Any) -> bool:
    """Whether the first of these that is not ``None`` says so.

    Raises ``ValueError`` when it is none of ``CHOICES``.
    """
    choice = next((value for value in said if value is not None), AT_ONCE)
    if problem := problem_with(choice):
        raise ValueError(f"publish={choice!r} {problem}")
    return bool(choice == ON_COMMIT) and not _forced.get()


def problem_with(choice: Any) -> str:
    """What is wrong with a choice and what to do; empty when nothing is."""
    if isinstance(choice, str) and choice in CHOICES:
        return ""
    near = meant(choice)
    remedy = f" Did you mean {near!r}?" if near else ""
    return f"must be {' or '.join(map(repr, CHOICES))}.{remedy}"


def meant(choice: Any) -> str | None:
    """Which of the choices somebody meant who wrote this."""
    near = difflib.get_close_matches(str(choice).lower(), CHOICES, n=1, cutoff=0.5)
    return near[0] if near else None
