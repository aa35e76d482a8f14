"""``manage.py unstuck doctor``: what is wrong here, since when, and what mends it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from unstuck import project
from unstuck.doctor import SECONDS
from unstuck.doctor.facts import Seen
from unstuck.doctor.rule import Finding, Level
from unstuck.management.verbs._asking import positive
from unstuck.management.verbs._output import one_line, print_json

if TYPE_CHECKING:
    from unstuck.doctor.examine import Report

HELP = "the static checks, and what only shows live: broker, database, nodes, hosts"

FAIL_LEVELS = (Level.ERROR, Level.WARNING, Level.INFO)
WIDTH = 100
LABEL = 8
PLURALS = {Level.ERROR: "errors", Level.WARNING: "warnings", Level.INFO: "hints"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What counts as wrong, and where to ask."""
    add = parser.add_argument
    add(
        "--fail-level",
        type=str.lower,
        choices=[level.value for level in FAIL_LEVELS],
        default=Level.WARNING.value,
        help="exit with 1 for a finding of this level or a graver one (warning); what "
        "could not be asked counts as an error",
    )
    add(
        "--timeout",
        type=positive,
        default=SECONDS,
        metavar="SECONDS",
        help=f"how long all of it may take to answer ({SECONDS:g})",
    )
    add(
        "--rabbitmq-api",
        type=_api,
        metavar="URL",
        help="where RabbitMQ's management API is (port 15672 of the broker's host)",
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Print what was found: 0; 1 when something is wrong or could not be asked."""
    # Other verbs need not wait for all that this one imports.
    from unstuck.doctor.examine import examine

    report = examine(
        project.our_app(),
        rabbitmq_api=options["rabbitmq_api"],
        seconds=options["timeout"],
    )
    is_well = report.is_well(Level(options["fail_level"]))
    if options["json"]:
        print_json(_as_dict(report, is_well), out)
    else:
        _show(report, out)
    return 0 if is_well else 1


def _api(text: str) -> str:
    from unstuck.doctor.ask.management import parsed

    try:
        parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _as_dict(report: Report, is_well: bool) -> dict[str, Any]:
    return {
        "ok": is_well,
        "counts": report.counts,
        "silenced": report.silenced,
        "asked": list(_asked(report.seen)),
        "not_asked": report.seen.unasked,
        "findings": [each.to_wire() for each in report.findings],
    }


def _show(report: Report, out: TextIO) -> None:
    for each in report.findings:
        out.write(f"{each.level.upper()}: {one_line(each.what)} ({each.id})\n")
        for label, text in _lines(each):
            out.write(f"{_wrapped(label, one_line(text))}\n")
        out.write("\n")
    asked = ", ".join(_asked(report.seen))
    out.write(f"Asked: {one_line(asked) or 'nobody who answered'}.\n")
    out.write(f"{_summary(report)}\n")


def _lines(each: Finding) -> Iterator[tuple[str, str]]:
    if each.since:
        yield "since", f"{each.since:%Y-%m-%d %H:%M:%S} UTC"
    if each.why:
        yield "why", each.why
    yield "mend", each.remedy
    yield "more", each.docs


def _wrapped(label: str, text: str) -> str:
    # A command is to be copied as it is.
    indent = " " * (LABEL + 2)
    first = f"  {label:<{LABEL}}"
    if label == "mend":
        return f"{first}{text}"
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent)


def _summary(report: Report) -> str:
    silenced = f" ({report.silenced} silenced)" if report.silenced else ""
    if not report.findings:
        return f"Nothing was found{silenced}."
    counts = [
        f"{count} {PLURALS.get(level, level) if count != 1 else level}"
        for level, count in report.counts.items()
        if count
    ]
    return f"{', '.join(counts)}{silenced}."


def _asked(seen: Seen) -> Iterator[str]:
    if seen.redis:
        yield f"{seen.redis.program} {seen.redis.version} at {seen.redis.where}"
    if seen.rabbit:
        yield f"RabbitMQ {seen.rabbit.version} at {seen.rabbit.where}"
    if seen.queues:
        yield f"the queues {', '.join(queue.name for queue in seen.queues)}"
    if seen.database:
        yield f"the database {seen.here.database!r} ({seen.database.vendor})"
    for node in seen.nodes:
        yield f"the node {node.name}"
