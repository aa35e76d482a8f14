"""Which task a line of the log is of.

Celery knows for the thread that runs it. A context variable knows for what the task starts
with a copy of its context: ``asyncio.to_thread``, ``sync_to_async``, or a thread that runs
``contextvars.copy_context().run``. Nobody asks before a line is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from celery._state import get_current_task

NOBODY = "???"
"""Stands in formats, as Celery has it, for the task of a line that is of none."""

FIELDS = ("task_id", "task_name", "attempt")


class TaskOf(NamedTuple):
    """The task that a line is of."""

    id: str
    name: str
    attempt: int | None
    """Runs of this task, this one counted."""


running: ContextVar[tuple[str, Any] | None] = ContextVar("unstuck_task", default=None)
"""The name and the request of the task that runs."""


@contextmanager
def within(name: str, request: Any) -> Iterator[None]:
    """Lines that are written here are of this task."""
    token = running.set((name, request))
    try:
        yield
    finally:
        running.reset(token)


def current() -> TaskOf | None:
    """The task that runs here, if one does."""
    task = get_current_task()
    if task is not None and task.request.id:
        # The inner one, where a task calls another one eagerly.
        return _of(task.name, task.request)
    name, request = running.get() or ("", None)
    return _of(name, request) if request is not None and request.id else None


def of(record: logging.LogRecord) -> TaskOf | None:
    """The task that a line is of: the one that runs, or that ``TaskFilter`` wrote down."""
    if found := current():
        return found
    task_id, name, attempt = (vars(record).get(field) for field in FIELDS)
    is_told = isinstance(task_id, str) and isinstance(name, str) and name != NOBODY
    return TaskOf(str(task_id), str(name), attempt) if is_told else None


def _of(name: str, request: Any) -> TaskOf:
    # Of a message that nobody could read they may be anything.
    retries = request.retries if isinstance(request.retries, int) else 0
    return TaskOf(str(request.id), name, retries + 1)


class TaskFilter(logging.Filter):
    """Lets every line through, with ``task_id``, ``task_name`` and ``attempt`` on it.

    For formats that name them, and for handlers that hand lines to another thread.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Write the task down."""
        task = None if "task_id" in vars(record) else of(record)
        # What whoever wrote the line has said of a task is let be.
        for name, value in zip(FIELDS, task or (NOBODY, NOBODY, None), strict=True):
            vars(record).setdefault(name, value)
        return True
