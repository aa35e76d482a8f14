"""What a worker answers when it is asked from afar, beside Celery's own commands."""

from __future__ import annotations

from typing import Any

from celery.worker.control import inspect_command

STACK_COMMAND = "unstuck_stack"


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


def _seen(consumer: Any, task_id: str) -> tuple[str, str] | None:
    for watch in (getattr(consumer.pool, "watch", None), consumer.app.watch):
        if watch is not None:
            seen: tuple[str, str] | None = watch.stack_of(task_id)
            return seen
    return None
