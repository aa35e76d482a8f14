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

from unstuck import tracing
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

Named = tuple[Any, str, Any, Any]
"""A call that has got its id: the task, that id, and its arguments."""


@dataclass(slots=True)
class Pattern:
    """The message of the last call that was worked out, and for how long it holds."""

    until: float
    options: Any
    settings: dict[str, Any]
    ignored: bool | None = None
    put: Any = None
    stencil: Stencil | None = None
    channel: Any = None
    """Where it was sent; any thread may."""

    of_no_use: bool = False
    """Whether messages of this task, or on this broker, cannot be made like this.

    What waits for a commit is written, not sent."""

    @classmethod
    def for_task(cls, task: Any) -> Pattern:
        """A pattern that is not known yet."""
        task._get_exec_options()  # Has Celery work them out, once.
        return cls(
            until=time.monotonic() + PATTERN_SECONDS,
            options=task._exec_options,
            settings=dict(task.app.conf.changes),
            of_no_use=task.app.waits_for_commit(task),
        )

    def holds_for(self, task: Any) -> bool:
        """Whether nothing has changed that would change the message."""
        return (
            time.monotonic() <= self.until
            and self.options is task._exec_options
            and self.settings == task.app.conf.changes
        )


def publish(task: Any, args: Any, kwargs: Any) -> Any:
    """Publish one call, if a pattern for it is there; its result, or ``None``."""
    pattern: Pattern | None = vars(task).get("_pattern")
    if pattern is None or not pattern.holds_for(task):
        # The first call within a second takes Celery's way, the second one shows it.
        task._pattern = Pattern.for_task(task)
        return None
    if pattern.of_no_use or _must_be_seen(task):
        return None
    if task.typing:
        task.__header__(*(args or ()), **(kwargs or {}))
    if pattern.stencil is None or pattern.channel.closed:
        return _learn(task, pattern, args, kwargs)
    return _print(task, pattern, args or (), kwargs or {})


def _must_be_seen(task: Any) -> bool:
    """Whether somebody listens, or it is called within a task, whose child it becomes."""
    for signal in LISTENED:
        if signal.receivers:
            return True
    return task.app.current_worker_task is not None or tracing.is_on()


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
            pattern.channel, pattern.put = channel, puts[0]
            pattern.ignored = result.ignored
            pattern.stencil = Stencil.of(puts[0].content, result.id, reprs_of(task))
        pattern.of_no_use = pattern.stencil is None
        for put in puts:
            _send(channel, put, (task, result.id, args, kwargs), producer)
        return result


def _print(task: Any, pattern: Pattern, args: Any, kwargs: Any) -> Any:
    assert pattern.stencil is not None  # noqa: S101 - whoever calls this has looked
    task_id = uuid()
    put = pattern.put.with_content(pattern.stencil.message(task_id, args, kwargs))
    if pattern.ignored:
        result = expected(task, task_id, True, None)
    else:
        with task.app.producer_or_acquire() as producer:
            result = expected(task, task_id, False, producer)
    _send(pattern.channel, put, (task, task_id, args, kwargs))
    return result


def _send(channel: Any, put: Any, call: Named, producer: Any = None) -> None:
    try:
        channel.send(put)
    except channel.publish_errors:
        task, task_id, args, kwargs = call
        with task.app.producer_or_acquire(producer) as another:
            # Celery tries again as its settings say, and raises what it always raises:
            # on a new connection, or the old one would take its time to fail once more.
            another.connection.collect()
            another.revive(another.connection)
            task.apply_async_as_celery(args, kwargs, task_id=task_id, producer=another)
