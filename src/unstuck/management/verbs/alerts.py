"""``manage.py unstuck alerts …``: what is told to whom, and whether it arrives."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from unstuck import conf, operations_alerts
from unstuck.core.clock import system_clock
from unstuck.management.verbs._output import moment, one_line, print_json, print_table
from unstuck.models import Alert

HELP = "alerts: list what is told to whom, try each target"
HEADINGS = ("STATE", "SINCE", "CONDITION", "WHAT", "TARGET", "TOLD", "ERROR")
NOBODY = 'Nobody is told: UNSTUCK["ALERTS"] has no target.'
Verb = Callable[[dict[str, Any], TextIO], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``list`` and ``test``."""
    choices = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = choices.add_parser(
        "list", help="what fires, and what is still to be told"
    )
    listing.add_argument(
        "--all", action="store_true", help="also what is over and told"
    )
    choices.add_parser("test", help="send a message to each target now")


def run(options: dict[str, Any], out: TextIO) -> int:
    """Do what is asked: 0; 1 when a target could not be told, or there is none."""
    return VERBS[options["action"]](options, out)


def _list(options: dict[str, Any], out: TextIO) -> int:
    kept = operations_alerts.alerts()
    shown = [row for row in kept if options["all"] or row.is_firing or row.due_at]
    failing = list(operations_alerts.unreached(kept))
    if options["json"]:
        print_json({"alerts": [_summary(row) for row in shown]}, out)
    else:
        print_table(HEADINGS, [_cells(row) for row in shown], out)
        number = len(conf.current().alerts)
        told = f"{number} target{'' if number == 1 else 's'}." if number else NOBODY
        sys.stderr.write(f"{told}\n")
    return 1 if failing else 0


def _test(options: dict[str, Any], out: TextIO) -> int:
    tried = operations_alerts.try_targets()
    if options["json"]:
        each = [{"target": shown, "error": error or None} for shown, error in tried]
        print_json({"targets": each}, out)
    elif tried:
        cells = [(shown, error or "told") for shown, error in tried]
        print_table(("TARGET", "RESULT"), cells, out)
    if not tried:
        sys.stderr.write(f"{NOBODY}\n")
    return 0 if tried and not any(error for _, error in tried) else 1


def _state(row: Alert) -> str:
    return "firing" if row.is_firing else "over"


def _summary(row: Alert) -> dict[str, Any]:
    return {
        "id": row.alert_id,
        "state": _state(row),
        "condition": row.condition,
        "subject": row.subject,
        "what": row.what,
        "remedy": row.remedy,
        "facts": row.facts,
        "since": row.since,
        "resolved_at": row.resolved_at,
        "target": row.target,
        "told_at": row.told_at,
        "due_at": row.due_at,
        "attempts": row.attempts,
        "last_error": row.last_error,
    }


def _cells(row: Alert) -> tuple[object, ...]:
    now = system_clock()
    waits = (row.due_at is not None and row.due_at <= now) or row.attempts
    told = "not yet" if waits else moment(row.told_at) if row.told_at else ""
    what = one_line(row.what)[:80]
    facts = _state(row), moment(row.since), row.condition, what, row.target
    return (*facts, told, one_line(row.last_error)[:80])


VERBS: Mapping[str, Verb] = {"list": _list, "test": _test}
