"""``manage.py unstuck queues …``: have workers pause a queue, and go on with it."""

from __future__ import annotations

import argparse
import sys
from typing import Any, TextIO

from unstuck import operations_queues, project
from unstuck.core.errors import ControlError
from unstuck.management.verbs import _asking as asking
from unstuck.management.verbs._asking import UsageError
from unstuck.management.verbs._output import one_line, print_json
from unstuck.operations_queues import Told
from unstuck.remote import ANSWER_SECONDS

HELP = "have the workers pause a queue, or go on with it (counts: unstuck status)"

ACTIONS = {
    "pause": (operations_queues.pause_queue, "no longer consumed"),
    "resume": (operations_queues.resume_queue, "consumed again"),
}
HELPS = {
    "pause": "those that consume it stop that; what they have in hand goes on",
    "resume": "those that consumed it before do so again",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``pause`` and ``resume``."""
    choices = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in HELPS.items():
        one = choices.add_parser(action, help=text, description=text)
        one.add_argument("name", metavar="NAME", help="of the queue")
        one.add_argument("--reason", required=True, help="for the audit")
        one.add_argument(
            "--timeout",
            type=asking.positive,
            default=ANSWER_SECONDS,
            metavar="SECONDS",
            help=f"how long the nodes may take to answer ({ANSWER_SECONDS:g})",
        )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Do it: 0; 1 when a node did not say that it did. Raises ``ControlError``."""
    if not options["reason"].strip():
        raise UsageError("--reason must say why: others will ask.")
    act, words = ACTIONS[options["action"]]
    name = options["name"]
    told = act(
        project.our_app(),
        name,
        who=asking.who(),
        why=options["reason"],
        seconds=options["timeout"],
    )
    status = 1 if told.failed or told.silent else 0
    if options["json"]:
        answer = {"done": told.done, "failed": dict(told.failed), "silent": told.silent}
        print_json({"queue": name, **answer}, out)
        return status
    if told.done:
        out.write(one_line(f"{name} is {words} on {', '.join(told.done)}.") + "\n")
    if options["action"] == "pause":
        sys.stderr.write("A worker that is started anew consumes it again.\n")
    if status:
        raise ControlError(_shortfall(told))
    return 0


def _shortfall(told: Told) -> str:
    lines = [f"{node} could not: {why}" for node, why in told.failed.items()]
    lines += [f"{node} did not answer; it may do it later." for node in told.silent]
    return "\n".join(lines)
