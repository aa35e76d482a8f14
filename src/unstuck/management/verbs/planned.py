"""``manage.py unstuck planned …``: what waits for its time; run one now, or drop it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TextIO

from django.db import Error

from unstuck import operations_planned, planned, project, remote
from unstuck.core.clock import system_clock
from unstuck.core.planned import Planned, Why
from unstuck.management.verbs import _asking as asking
from unstuck.management.verbs._asking import UsageError
from unstuck.management.verbs._output import moment, one_line, print_json, print_table
from unstuck.management.verbs._untold import untold_in_words
from unstuck.planned import MOST_SHOWN, Live, Wanted
from unstuck.remote import Untold

HELP = (
    "what waits for its time (ETA, retry, lock, outbox): list it, run one now, drop one"
)
HEADINGS = ("DUE", "IN", "TASK", "TASK ID", "ATTEMPT", "WHY", "QUEUE", "WHERE")

Verb = Callable[[dict[str, Any], TextIO], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``list``, ``run`` and ``drop``."""
    choices = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = choices.add_parser("list", help="the next first")
    listing.add_argument("--task", default="", metavar="PART", help="of its name")
    listing.add_argument("--queue", default="", metavar="NAME")
    listing.add_argument("--why", type=_why, help=", ".join(Why))
    for action, text in HELPS.items():
        one = choices.add_parser(action, help=text, description=text)
        one.add_argument("task_id", metavar="TASK_ID")
        one.add_argument("--reason", required=True, help="for the audit")


def run(options: dict[str, Any], out: TextIO) -> int:
    """Do what is asked: 0. Raises ``ControlError`` for what could not be done."""
    return VERBS[options["action"]](options, out)


HELPS = {
    "run": "have one that waits on the broker (Redis Streams) run at once",
    "drop": "have one not run: it ends as revoked",
}


def _list(options: dict[str, Any], out: TextIO) -> int:
    app = project.our_app()
    wanted = Wanted(
        task=options["task"], queue=options["queue"], why=options["why"] or ""
    )
    found = planned.those(_everything(app, wanted), wanted)
    if options["json"]:
        print_json(_as_json(found), out)
        return 0
    rows = [_row(app, one) for one in found.rows[:MOST_SHOWN]]
    print_table(HEADINGS, rows, out)
    for line in _remarks(found):
        sys.stderr.write(one_line(line) + "\n")
    return 0


def _everything(app: Any, wanted: Wanted) -> list[Live]:
    try:
        expected = remote.expected_nodes()
        outbox = planned.in_outbox(app, wanted)
    except Error:
        expected, outbox = [], Live(untold=[Untold("database")])
    return [planned.live(app, expected, wanted), outbox]


def _as_json(found: Live) -> dict[str, Any]:
    return {
        "planned": [one.to_wire() for one in found.rows[:MOST_SHOWN]],
        "total": found.total,
        "cut": dict(found.cut),
        "in_delay_queues": found.counted,
        "not_asked": [untold._asdict() for untold in found.untold],
    }


def _row(app: Any, one: Planned) -> tuple[object, ...]:
    most = planned.attempts_of(app, one.task_name)
    return (
        moment(one.due_at),
        _in(one.due_at),
        one.task_name,
        one.task_id,
        f"{one.attempt} of {most}" if most else one.attempt,
        f"lock {one.lock}" if one.lock else one.why.value,
        one.queue or "-",
        one.node or one.where.value,
    )


def _in(due_at: datetime | None) -> str:
    if due_at is None:
        return "-"
    seconds = (due_at - system_clock()).total_seconds()
    return f"{seconds:.0f} s" if seconds > 0 else "due"


def _remarks(found: Live) -> list[str]:
    shown = min(len(found.rows), MOST_SHOWN)
    said = [f"{shown} of {found.total} that fit."]
    said += [
        f"{name}: of {total} only those that are due first were looked at."
        for name, total in found.cut.items()
    ]
    if found.counted is not None:
        said.append(
            f"{found.counted} wait in RabbitMQ's delay queues, which nobody can look into."
        )
    return said + [f"Not asked: {untold_in_words(each)}." for each in found.untold]


def _run_now(options: dict[str, Any], out: TextIO) -> int:
    task_id, why = _given(options)
    queue = operations_planned.run_now(
        project.our_app(), task_id, who=asking.who(), why=why
    )
    if options["json"]:
        print_json({"task_id": task_id, "queue": queue}, out)
    else:
        out.write(one_line(f"{task_id} is in the queue {queue} now.") + "\n")
    return 0


def _drop(options: dict[str, Any], out: TextIO) -> int:
    task_id, why = _given(options)
    dropped = operations_planned.drop_task(
        project.our_app(), task_id, who=asking.who(), why=why
    )
    if options["json"]:
        answer = {"queue": dropped.queue, "told": dropped.told}
        print_json({"task_id": task_id, **answer}, out)
    elif dropped.queue:
        out.write(one_line(f"{task_id} is taken out of {dropped.queue}.") + "\n")
    else:
        nodes = ", ".join(dropped.told)
        out.write(one_line(f"{task_id} is revoked on {nodes}.") + "\n")
        sys.stderr.write(
            "They drop it when they meet it, until they are started anew; what runs "
            "already goes on.\n"
        )
    return 0


def _given(options: dict[str, Any]) -> tuple[str, str]:
    if not options["reason"].strip():
        raise UsageError("--reason must say why: others will ask.")
    return options["task_id"].strip(), options["reason"]


def _why(text: str) -> str:
    if planned.why(text) is None:
        near = planned.nearest_why(text)
        remedy = f"Did you mean {near!r}? " if near else ""
        message = f"{text!r} is no reason to wait. {remedy}There are: {', '.join(Why)}."
        raise argparse.ArgumentTypeError(message)
    return text


VERBS: Mapping[str, Verb] = {"list": _list, "run": _run_now, "drop": _drop}
