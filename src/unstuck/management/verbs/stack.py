"""``manage.py unstuck stack TASK_ID``: where a running task stands, right now."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any, TextIO

from unstuck import operations_tasks, project
from unstuck.core.errors import UnstuckError
from unstuck.management.verbs._asking import UsageError
from unstuck.management.verbs._output import one_line, print_json, printable

HELP = "show the live stack of a running task, wherever it runs; the task goes on"


class NotRunning(UnstuckError):
    """No node that answered runs the task."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task, and how long to wait for nodes."""
    parser.add_argument("task_id", metavar="TASK_ID")
    parser.add_argument(
        "--timeout",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="how long the nodes may take to answer (2)",
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Show the stack: 0. Raises ``NotRunning``."""
    if options["timeout"] <= 0:
        raise UsageError(f"--timeout {options['timeout']}: must be above 0 seconds")
    answers = operations_tasks.stacks(
        project.our_app(), options["task_id"], seconds=options["timeout"]
    )
    found = {node: answer for node, answer in answers.items() if answer}
    if not found:
        raise NotRunning(_where_it_is_not(options["task_id"], list(answers)))
    for node, answer in found.items():
        seen = {"node": node, **answer}
        if options["json"]:
            print_json(seen, out)
        else:
            _show(seen, out)
    return 0


def _where_it_is_not(task_id: str, nodes: list[str]) -> str:
    if not nodes:
        return (
            f"No worker answered, so nobody can say where {task_id} stands. "
            f"Are workers running, and is the broker's address the same? "
            f"A slow one may need a longer --timeout."
        )
    asked = ", ".join(sorted(nodes))
    return (
        f"{task_id} does not run on any node that answered: {asked}. An id must be whole; "
        f"`unstuck where` says where it is."
    )


def _show(seen: Mapping[str, Any], out: TextIO) -> None:
    since = f" for {time.time() - seen['started']:.1f} s" if seen["started"] else ""
    title = f"{seen['task_name']}[{seen['task_id']}] on {seen['node']}"
    out.write(one_line(f"{title}, pid {seen['pid']}, runs{since}") + "\n")
    if seen["waiting_for"]:
        out.write(one_line(f"waits for {seen['waiting_for']}") + "\n")
    out.write(printable(seen["stack"] or "No stack could be read.") + "\n")
