"""``manage.py unstuck outbox …``: what waits in the outbox, and sending it now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TextIO

from django.db.models import Min

from unstuck import operations, project
from unstuck.core.clock import system_clock
from unstuck.management.verbs._asking import UsageError
from unstuck.management.verbs._output import print_json, print_table
from unstuck.models import OutboxMessage
from unstuck.outbox import relay
from unstuck.outbox.rows import rows

HELP = "the outbox: list what waits to be sent, send it now"
HEADINGS = ("ROW", "TASK", "TASK ID", "QUEUE", "AGE", "REFUSED", "ERROR")

Verb = Callable[[dict[str, Any], TextIO], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``list`` and ``send``."""
    choices = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = choices.add_parser("list", help="what waits, the oldest first")
    listing.add_argument(
        "--limit", type=int, default=50, metavar="N", help="at most N (default 50)"
    )
    choices.add_parser("send", help="send it now; the recorder does so by itself")


def run(options: dict[str, Any], out: TextIO) -> int:
    """Do what is asked: 0; 1 when something is left, 2 for bad usage."""
    return VERBS[options["action"]](options, out)


def _list(options: dict[str, Any], out: TextIO) -> int:
    if options["limit"] < 1:
        raise UsageError(f"--limit {options['limit']} must be above 0.")
    now = system_clock()
    total = rows().count()
    oldest = _age(rows().aggregate(Min("written_at"))["written_at__min"], now)
    waiting = list(rows().defer("body", "envelope")[: options["limit"]])
    if options["json"]:
        facts = {"total": total, "oldest_seconds": oldest}
        print_json({"messages": [_summary(row, now) for row in waiting], **facts}, out)
        return 0
    print_table(HEADINGS, [_cells(row, now) for row in waiting], out)
    rest = "" if total == len(waiting) else f", {len(waiting)} shown (--limit)"
    sys.stderr.write(f"{_count(total)}{rest}.\n")
    return 0


def _send(options: dict[str, Any], out: TextIO) -> int:
    app = project.our_app()
    # Also what was put off because the broker refused it, but not what is just written.
    rows().filter(attempts__gt=0).update(due_at=system_clock())
    sent = 0
    with operations.broker_errors(app):
        while some := relay.send_due(app):
            sent += some
    left = rows().count()
    if options["json"]:
        print_json({"sent": sent, "left": left}, out)
    else:
        out.write(f"{_count(sent)} sent, {left} left.\n")
    return 1 if left else 0


def _summary(row: OutboxMessage, now: datetime) -> dict[str, Any]:
    return {
        "row": row.pk,
        "task_name": row.task_name,
        "task_id": row.task_id,
        "queue": row.queue,
        "written_at": row.written_at,
        "age_seconds": _age(row.written_at, now),
        "due_at": row.due_at,
        "attempts": row.attempts,
        "last_error": row.last_error,
    }


def _cells(row: OutboxMessage, now: datetime) -> tuple[object, ...]:
    age = f"{(now - row.written_at).total_seconds():.0f} s"
    refused = row.attempts or ""
    names = row.pk, row.task_name, row.task_id, row.queue
    return (*names, age, refused, row.last_error[:80])


def _age(written_at: datetime | None, now: datetime) -> float | None:
    return None if written_at is None else (now - written_at).total_seconds()


def _count(messages: int) -> str:
    return f"{messages} message{'' if messages == 1 else 's'}"


VERBS: Mapping[str, Verb] = {"list": _list, "send": _send}
