"""What a worker answers when it is asked from afar, beside Celery's own commands."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Any

from celery.worker.control import inspect_command
from celery.worker.request import Request
from celery.worker.state import active_requests, requests, revoked

from unstuck.core.clock import system_clock
from unstuck.core.planned import Planned, Where
from unstuck.letters.message import StoredMessage
from unstuck.letters.redact import storable
from unstuck.letters.shown import shown_arguments
from unstuck.worker import notes, told

STACK_COMMAND = "unstuck_stack"
PLANNED_COMMAND = "unstuck_planned"
WHERE_COMMAND = "unstuck_where"
TOLD_COMMAND = "unstuck_told"
COMMANDS = (STACK_COMMAND, PLANNED_COMMAND, WHERE_COMMAND, TOLD_COMMAND)


@inspect_command(  # type: ignore[untyped-decorator]
    name=STACK_COMMAND, args=[("task_id", str)], signature="<task_id>"
)
def stack(state: Any, task_id: str, **_: Any) -> dict[str, Any] | None:
    """Where a task that runs here stands; ``None`` if it does not.

    The task goes on: its process writes its stack in a signal handler.
    """
    seen = _seen(state.consumer, task_id)
    if seen is None:
        return None
    where, waiting_for = seen
    request = state.app.consumer_in_charge.running(task_id)
    return {
        "task_id": task_id,
        "task_name": request.name if request else "",
        "pid": request.worker_pid if request else None,
        "started": request.time_start if request else None,
        "stack": where,
        "waiting_for": waiting_for,
    }


@inspect_command(  # type: ignore[untyped-decorator]
    name=PLANNED_COMMAND, args=[("most", int)], signature="<most>"
)
def planned(state: Any, most: int, arguments: bool = False, **_: Any) -> dict[str, Any]:
    """What this node has in hand whose time has not come: the first ``most``, and all
    counted; with redacted arguments if those are asked for."""
    waiting = list(_in_timer(state.consumer.timer))
    first = heapq.nsmallest(int(most), waiting, key=lambda request: request.eta)
    rows = [_planned(state.app, request, arguments) for request in first]
    return {"total": len(waiting), "rows": rows}


@inspect_command(  # type: ignore[untyped-decorator]
    name=WHERE_COMMAND, args=[("task_id", str)], signature="<task_id>"
)
def where(state: Any, task_id: str, **_: Any) -> dict[str, Any]:
    """What this node knows of a task: whether it runs here, waits here, or is revoked."""
    request = requests.get(task_id)
    found: dict[str, Any] = {"state": "", "revoked": task_id in revoked}
    if request is None:
        return found
    return {
        **found,
        "state": _state_of(request),
        "task_name": request.name,
        "queue": getattr(request, "queue", ""),
        "attempt": 1 + (request.request_dict.get("retries") or 0),
        "pid": request.worker_pid,
        "started": request.time_start,
        "due": request.eta.timestamp() if request.eta else None,
    }


def _state_of(request: Any) -> str:
    if request in active_requests and request.time_start:
        return "running"
    waits = request.eta is not None and request.eta > system_clock()
    return "scheduled" if waits else "reserved"


def _in_timer(timer: Any) -> Iterator[Any]:
    for waiting in list(timer.schedule.queue):
        for first in islice(waiting.entry.args or (), 1):
            if isinstance(first, Request) and first.eta:
                yield first


def _planned(app: Any, request: Any, arguments: bool) -> dict[str, Any]:
    message = request.message
    delivery = notes.delivery_from(message.headers or {}, request.queue)
    shown = None
    if arguments:
        stored = StoredMessage.of(message, request.queue)
        shown = storable(shown_arguments(app, stored, delivery.task_name))
    one = Planned.of(delivery, Where.NODE, due_at=request.eta, arguments=shown)
    return one.to_wire()


@inspect_command(name=TOLD_COMMAND)  # type: ignore[untyped-decorator]
def tell(state: Any, **_: Any) -> dict[str, Any]:
    """What only this node knows of itself: code, settings, queues, clock, host."""
    return told.by_worker(state.consumer.controller)


def _seen(consumer: Any, task_id: str) -> tuple[str, str] | None:
    for watch in (getattr(consumer.pool, "watch", None), consumer.app.watch):
        if watch is not None:
            seen: tuple[str, str] | None = watch.stack_of(task_id)
            return seen
    return None
