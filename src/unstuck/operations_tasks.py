"""What an operator can do to running tasks; every deed leaves an audit entry.

The command line and the dashboard call these functions and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unstuck import audit, remote
from unstuck.core.errors import ControlError
from unstuck.worker.remote import STACK_COMMAND

STOP = "stop task"

UNKNOWN = "terminate: tasks unknown"
"""What Celery answers where the task is not."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """What the nodes answered that were told to stop a task."""

    on: tuple[str, ...]
    """Those that had it and end it."""

    elsewhere: tuple[str, ...]
    """Those that do not have it; they drop it should it come."""

    failed: Mapping[str, str]
    """Those that cannot, and why."""


def stacks(
    app: Any, task_id: str, *, node: str = "", seconds: float | None = None
) -> dict[str, Mapping[str, Any] | None]:
    """Where a task stands on each node that answered; ``None`` where it does not run.

    Nodes without unstuck are left out. Raises ``BrokerUnreachable``.
    """
    nodes = [node] if node else None
    arguments = {"task_id": task_id}
    answers = remote.broadcast(
        app, STACK_COMMAND, arguments, nodes=nodes, seconds=seconds
    )
    return {
        name: answer
        for name, answer in answers.items()
        if answer is None or (isinstance(answer, Mapping) and "stack" in answer)
    }


def stop_task(
    app: Any,
    task_id: str,
    *,
    who: str,
    why: str,
    seconds: float | None = None,
) -> Stopped:
    """End a running task as Celery does: revoked, its process ended by ``SIGTERM``.

    It ends as revoked, and so it is not retried and no dead letter. A node that does not
    answer in time may still do it later.

    Raises ``ControlError`` without a reason, and ``BrokerUnreachable``; then nothing has
    changed. Raises ``InDoubt`` when the broker is lost after nodes may have been told, and
    the audit entry says that.
    """
    if not why.strip():
        raise ControlError(
            f"To stop the task {task_id} needs a reason, because what it did so far stays "
            f"done and the rest is not."
        )
    arguments = {"task_id": task_id, "terminate": True, "signal": "SIGTERM"}
    details = {"task_id": task_id}
    with audit.recorded(STOP, task_id, who=who, why=why, details=details) as deed:
        answers = remote.broadcast(
            app, "revoke", arguments, seconds=seconds, begins=deed.begins
        )
        stopped = _read(answers)
        deed.details |= {
            "stopped_on": stopped.on,
            "not_there": stopped.elsewhere,
            "failed": stopped.failed,
        }
    return stopped


def _read(answers: Mapping[str, Any]) -> Stopped:
    told = {node: remote.said(answer) for node, answer in sorted(answers.items())}
    fine = {node for node, answer in answers.items() if remote.agreed(answer)}
    return Stopped(
        on=tuple(node for node in told if node in fine and told[node] != UNKNOWN),
        elsewhere=tuple(node for node in told if told[node] == UNKNOWN),
        failed={node: text for node, text in told.items() if node not in fine},
    )
