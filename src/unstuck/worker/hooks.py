"""What Celery does for a failure that the process of the task did not live to see.

It runs code of the project (``on_failure``, ``after_return``, receivers of
``task_failure``, errbacks) and talks to the result store. With our pool that happens in a
child, under a limit, so that a hook that hangs delays nobody but itself.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from celery import current_app, signals, states
from celery.app.task import Context
from kombu.utils.encoding import safe_repr

from unstuck import tracing
from unstuck.fields import Fields
from unstuck.logs import task as logs
from unstuck.pool import TaskPool
from unstuck.pool.answers import info_of

logger = logging.getLogger(__name__)

HOOK_SECONDS = 30
"""How long all hooks of one failure may take together."""


def run(pool: Any, call: Callable[..., None], *args: Any) -> None:
    """Call one of the functions below, where it can do no harm."""
    if isinstance(pool, TaskPool):
        name = f"{call.__name__} of {args[0]}"
        pool.on_apply(
            call,
            args,
            name=name,
            extra=True,
            timeout=HOOK_SECONDS,
            error_callback=lambda info: logger.error(
                "A hook raised: %(fields)s", Fields(hook=name, traceback=str(info))
            ),
        )
    else:
        call(*args)


def _as_the_task(call: Callable[..., None]) -> Callable[..., None]:
    """What it logs and traces is the task's."""

    @functools.wraps(call)
    def inside(name: str, request: Mapping[str, Any], *args: Any) -> None:
        with logs.within(name, Context(request)), tracing.within(request):
            call(name, request, *args)

    return inside


@_as_the_task
def record_failure(
    name: str,
    request: Mapping[str, Any],
    error: BaseException,
    traceback: str | None,
    store_errors: bool,
) -> None:
    """Do what Celery's tracer does for a failure, once.

    ``request`` is what the task's ``Context`` holds, its arguments included.
    """
    task = current_app.tasks[name]
    context = Context(request)
    arguments = (context.id, context.args, context.kwargs)
    info = info_of(error)
    if traceback:
        info.traceback = traceback
    task.request_stack.push(context)
    try:
        _safely(
            name,
            task.backend.mark_as_failure,
            context.id,
            error,
            traceback,
            request=context,
            store_result=store_errors,
        )
        _safely(name, task.on_failure, error, *arguments, info)
        _safely(name, task.after_return, states.FAILURE, error, *arguments, info)
        _safely(
            name,
            signals.task_failure.send,
            sender=task,
            task_id=context.id,
            exception=error,
            args=context.args,
            kwargs=context.kwargs,
            traceback=traceback,
            einfo=info,
        )
    finally:
        task.request_stack.pop()


@_as_the_task
def record_retry(
    name: str, request: Mapping[str, Any], error: BaseException, traceback: str | None
) -> None:
    """Have the result say that the task will run again."""
    context = Context(request)
    _safely(
        name,
        current_app.tasks[name].backend.mark_as_retry,
        context.id,
        error,
        traceback,
        request=context,
    )


@_as_the_task
def record_unread(name: str, request: Mapping[str, Any], error: BaseException) -> None:
    """Fail the result and the canvas of a message that no task here can take."""
    context = Context(request)
    _safely(
        name, current_app.backend.mark_as_failure, context.id, error, request=context
    )


def _safely(name: str, function: Any, *args: Any, **kwargs: Any) -> None:
    """Call what others wrote; its error must not keep the rest from being called."""
    try:
        function(*args, **kwargs)
    except Exception:
        logger.exception(
            "A hook raised: %(fields)s", Fields(task=name, hook=safe_repr(function))
        )
