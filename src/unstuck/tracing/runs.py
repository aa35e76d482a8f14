"""Spans of runs, in the process of the task.

Celery seam (tests/integration/test_tracing.py): ``task_prerun`` and ``task_postrun`` are
sent around all that belongs to a run, its hooks and Celery's own lines in the log included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import signals, states
from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode

from unstuck.tracing import spans
from unstuck.tracing.about import Message, broker_of

KEPT = "unstuck_span"
"""Where a request has the span of its run, and what ends its being the active one."""


def install() -> None:
    """Listen to Celery."""
    signals.task_prerun.connect(_begin, weak=False, dispatch_uid="unstuck_begin_span")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid="unstuck_end_span")


def _begin(*, task: Any, **_: Any) -> None:
    request = task.request
    span = spans.begin_run(_message_of(task, request), vars(request), None)
    token = context.attach(trace.set_span_in_context(span))
    vars(request)[KEPT] = (span, token)


def _end(*, task: Any, state: Any, retval: Any, **_: Any) -> None:
    kept = vars(task.request).pop(KEPT, None)
    if kept is None:
        return
    span, token = kept
    context.detach(token)
    if state is not None:  # Else the process ends, and main records it.
        try:
            _tell_end(span, state, retval)
        finally:
            span.end()


def _tell_end(span: Span, state: Any, result: Any) -> None:
    span.set_attribute("celery.state", str(state))
    if not isinstance(result, BaseException):
        return
    if state == states.FAILURE:
        span.record_exception(result)
        says = f"{type(result).__name__}: {result}"
        span.set_status(Status(StatusCode.ERROR, says))
    else:
        # A retry, a rejection: what it says is why.
        span.add_event(str(state).lower(), {"reason": str(result)})


def _message_of(task: Any, request: Any) -> Message:
    info: Mapping[str, Any] = request.delivery_info or {}
    return Message(
        task_id=request.id,
        task_name=task.name,
        queue=str(info.get("routing_key") or ""),
        attempt=(request.retries or 0) + 1,
        broker=broker_of(task.app),
    )
