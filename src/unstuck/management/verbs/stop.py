"""``manage.py unstuck stop TASK_ID``: end a running task, wherever it runs."""

from __future__ import annotations

import argparse
import sys
from typing import Any, TextIO

from unstuck import operations_tasks, project
from unstuck.core.errors import ControlError
from unstuck.management.verbs import _asking as asking
from unstuck.management.verbs._asking import UsageError
from unstuck.management.verbs._output import one_line, print_json
from unstuck.operations_tasks import Stopped
from unstuck.remote import ANSWER_SECONDS

HELP = (
    "end a running task, wherever it runs; it ends as revoked, and nothing retries it"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task, why, and how long to wait for nodes."""
    parser.add_argument("task_id", metavar="TASK_ID")
    parser.add_argument("--reason", required=True, help="for the audit")
    parser.add_argument(
        "--timeout",
        type=asking.positive,
        default=ANSWER_SECONDS,
        metavar="SECONDS",
        help=f"how long the nodes may take to answer ({ANSWER_SECONDS:g})",
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Stop it: 0. Raises ``ControlError`` when no node says that it did."""
    if not options["reason"].strip():
        raise UsageError("--reason must say why: what the task did so far stays done.")
    task_id = options["task_id"]
    stopped = operations_tasks.stop_task(
        project.our_app(),
        task_id,
        who=asking.who(),
        why=options["reason"],
        seconds=options["timeout"],
    )
    if options["json"]:
        print_json(
            {
                "task_id": task_id,
                "stopped_on": stopped.on,
                "not_there": stopped.elsewhere,
                "failed": dict(stopped.failed),
            },
            out,
        )
        return 0 if stopped.on else 1
    if not stopped.on:
        raise ControlError(_why_not(task_id, stopped))
    out.write(one_line(f"{task_id} is stopped on {', '.join(stopped.on)}.") + "\n")
    sys.stderr.write("It ends as revoked: not retried, and no dead letter.\n")
    return 0


def _why_not(task_id: str, stopped: Stopped) -> str:
    if stopped.failed:
        reasons = "; ".join(f"{node}: {why}" for node, why in stopped.failed.items())
        return f"{task_id} was not stopped: {reasons}"
    if stopped.elsewhere:
        return (
            f"{task_id} is not on any node that answered: {', '.join(stopped.elsewhere)}. "
            f"They drop it should it come, until they are started anew."
        )
    return (
        f"No worker answered, so nobody can say whether {task_id} is stopped. "
        f"A slow one may still do it: ask again with a longer --timeout."
    )
