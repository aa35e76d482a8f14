"""``manage.py unstuck locks …``: who holds what, and taking it from them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from unstuck import operations_locks, project
from unstuck.locks.backend import Held
from unstuck.locks.words import named
from unstuck.management.verbs import _asking as asking
from unstuck.management.verbs._asking import UsageError
from unstuck.management.verbs._output import moment, one_line, print_json, print_table

HELP = "the locks: list who holds what, release one"
HEADINGS = (
    *("LOCK", "HOLDER", "TASK ID", "NODE", "PID", "SINCE"),
    *("LEASE", "FENCE", "WAITERS"),
)

Verb = Callable[[dict[str, Any], TextIO], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``list`` and ``release``."""
    choices = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    choices.add_parser("list", help="all that are held now, by name")
    releasing = choices.add_parser("release", help="take one from its holder")
    releasing.add_argument("name", metavar="NAME", help="of the lock")
    releasing.add_argument("--reason", required=True, help="for the audit")


def run(options: dict[str, Any], out: TextIO) -> int:
    """Do what is asked: 0; 1 when it could not be done, 2 for bad usage."""
    # Its broker says where the locks are, unless the project does.
    project.our_app()
    return VERBS[options["action"]](options, out)


def _list(options: dict[str, Any], out: TextIO) -> int:
    held = operations_locks.held_locks()
    if options["json"]:
        print_json({"locks": [_facts(one) for one in held]}, out)
        return 0
    print_table(HEADINGS, [_row(one) for one in held], out)
    waiting = sum(len(one.waiting) for one in held)
    plural = "" if len(held) == 1 else "s"
    sys.stderr.write(f"{len(held)} lock{plural} held, {waiting} waiting.\n")
    return 0


def _release(options: dict[str, Any], out: TextIO) -> int:
    if not options["reason"].strip():
        raise UsageError("--reason must say why: its holder may still be at work.")
    held = operations_locks.release_lock(
        options["name"], who=asking.who(), why=options["reason"]
    )
    if options["json"]:
        print_json({"released": _facts(held)}, out)
        return 0
    out.write(f"{one_line(held.name)} released.\n")
    sys.stderr.write(
        f"It was held by {one_line(named(held.owner))}, which learns of it when it asks "
        f"for the lock, or at the end of its block.\n"
    )
    return 0


def _facts(held: Held) -> dict[str, Any]:
    return {
        "name": held.name,
        "holder": operations_locks.facts_of(held.owner),
        "since": datetime.fromtimestamp(held.since, UTC),
        "lease_seconds_left": round(held.seconds_left, 3),
        "fence": held.fence,
        "waiting": [operations_locks.facts_of(owner) for owner in held.waiting],
    }


def _row(held: Held) -> tuple[object, ...]:
    owner = held.owner
    return (
        held.name,
        owner.task_name or "-",
        owner.task_id or "-",
        owner.node,
        owner.pid,
        moment(datetime.fromtimestamp(held.since, UTC)),
        f"{held.seconds_left:.0f} s",
        held.fence,
        len(held.waiting) or "",
    )


VERBS: Mapping[str, Verb] = {"list": _list, "release": _release}
