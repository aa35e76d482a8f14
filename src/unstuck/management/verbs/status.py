"""``manage.py unstuck status``: what waits, and in whose hands the rest is."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any, TextIO

from unstuck import project, queues
from unstuck.management.verbs._output import print_json, print_table
from unstuck.queues import QueueFacts

HELP = "the queues at a glance: waiting, the oldest, in hand by node, delayed, dead"
HEADINGS = ("QUEUE", "WAITING", "OLDEST", "IN HAND", "DELAYED")
UNTOLD = "?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which queues."""
    parser.add_argument(
        "queues",
        nargs="*",
        metavar="QUEUE",
        help="only these; without any, all that workers of this project consume",
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Print it: 0."""
    app = project.our_app()
    found = queues.count(app, options["queues"] or queues.names_of(app))
    if options["json"]:
        print_json({"queues": [asdict(facts) for facts in found]}, out)
        return 0
    print_table(HEADINGS, [_row(facts) for facts in found], out)
    if any(facts.untold for facts in found):
        out.write(f"{UNTOLD}: this broker does not tell.\n")
    return 0


def _row(facts: QueueFacts) -> tuple[object, ...]:
    return (
        facts.name,
        "none declared" if facts.waiting is None else facts.waiting,
        _oldest(facts),
        _in_hand(facts),
        UNTOLD if facts.delayed is None else facts.delayed,
    )


def _oldest(facts: QueueFacts) -> str:
    if "oldest_seconds" in facts.untold:
        return UNTOLD
    return "" if facts.oldest_seconds is None else f"{facts.oldest_seconds:.1f} s"


def _in_hand(facts: QueueFacts) -> str:
    if facts.reserved is None:
        return UNTOLD
    each = (f"{node}: {number}" for node, number in sorted(facts.reserved.items()))
    return ", ".join(each)
