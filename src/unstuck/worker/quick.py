"""Publishing the same task again and again, as a busy site does.

Celery works out the message of each call anew. A second call within a second, without
options, is printed from the message of the one before; the options of the task are
compared each time, everything else is looked at anew each second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from celery.utils import uuid

from unstuck.core import broker
from unstuck.worker.many import (
    LISTENED,
    expected,
    is_like_others,
    must_be_seen,
    reprs_of,
)
from unstuck.worker.stencil import Stencil

PATTERN_SECONDS = 1.0


@dataclass(slots=True)
class Pattern:
    """The message of the last call that was worked out, and for how long it holds."""

    until: float
    options: Any
    ignored: bool | None = None
    put: Any = None
    stencil: Stencil | None = None
    of_no_use: bool = False
    """Whether messages of this task, or on this broker, cannot be made like this."""


def publish(task: Any, args: Any, kwargs: Any) -> Any:
    """Publish one call, if a pattern for it is there; its result, or ``None``."""
    pattern: Pattern | None = vars(task).get("_pattern")
    options = task._get_exec_options()
    if (
        pattern is None
        or pattern.options != options
        or time.monotonic() > pattern.until
    ):
        # The first call within a second takes Celery's way, the second one shows it.
        task._pattern = Pattern(time.monotonic() + PATTERN_SECONDS, options)
        return None
    if pattern.of_no_use:
        return None
    if any(signal.receivers for signal in LISTENED) or _belongs_to_another(task):
        return None
    if task.typing:
        task.__header__(*(args or ()), **(kwargs or {}))
    if pattern.stencil is None:
        return _learn(task, pattern, args, kwargs)
    return _print(task, pattern, args or (), kwargs or {})


def _belongs_to_another(task: Any) -> bool:
    """Whether it is called within a task, whose child it becomes, or not sent at all."""
    return bool(task.app.current_worker_task or task.app.conf.task_always_eager)


def _learn(task: Any, pattern: Pattern, args: Any, kwargs: Any) -> Any:
    """Send one call as Celery makes it, and keep how that is done."""
    with task.app.producer_or_acquire() as producer:
        channel = broker.lasting(producer.channel)
        if channel is None or must_be_seen(task) or not is_like_others(task):
            pattern.of_no_use = True
            return None
        with channel.collected() as puts:
            result = task.apply_async_as_celery(args, kwargs, producer=producer)
        if len(puts) == 1:
            pattern.put, pattern.ignored = puts[0], result.ignored
            pattern.stencil = Stencil.of(puts[0].content, result.id, reprs_of(task))
        pattern.of_no_use = pattern.stencil is None
        for put in puts:
            _send(task, producer, put, result.id, args, kwargs)
        return result


def _print(task: Any, pattern: Pattern, args: Any, kwargs: Any) -> Any:
    assert pattern.stencil is not None  # noqa: S101 - whoever calls this has looked
    task_id = uuid()
    put = pattern.put.with_content(pattern.stencil.message(task_id, args, kwargs))
    with task.app.producer_or_acquire() as producer:
        result = expected(task, task_id, pattern.ignored, producer)
        _send(task, producer, put, task_id, args, kwargs)
    return result


def _send(
    task: Any, producer: Any, put: Any, task_id: str, args: Any, kwargs: Any
) -> None:
    connection = producer.connection
    try:
        producer.channel.send(put)
    except (*connection.connection_errors, *connection.channel_errors):
        # Celery tries again as its settings say, and raises what it always raises: on a
        # new connection, or the old one would take its time to fail once more.
        connection.collect()
        producer.revive(connection)
        task.apply_async_as_celery(args, kwargs, task_id=task_id, producer=producer)
