"""``manage.py unstuck dead …``: look at dead letters, put them back, throw them away."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from django.db.models import Count, Max, QuerySet

from unstuck import operations, project, selection
from unstuck.letters import queue
from unstuck.management.verbs import _asking as asking
from unstuck.management.verbs import _letters as shown
from unstuck.management.verbs._asking import UsageError
from unstuck.management.verbs._output import print_json
from unstuck.models import DeadLetter
from unstuck.operations import ReplayReport

HELP = "the dead letters: list, show, replay, purge, archive"

FILTERS = ("task", "reason", "since", "until", "task_id", "text")
NAMED_SKIPS = 10
"""How many skipped letters are named on the terminal; JSON names all."""

Verb = Callable[[dict[str, Any], TextIO], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``list``, ``show``, ``replay``, ``purge`` and ``archive``."""
    choices = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = choices.add_parser("list", help="those that fit, newest first")
    _add_filters(listing)
    add = listing.add_argument
    add("--limit", type=int, default=50, metavar="N", help="at most N (default 50)")
    add("--grouped", action="store_true", help="count letters of the same trouble")
    showing = choices.add_parser("show", help="everything about one")
    showing.add_argument("id", metavar="ID", help="row, task or letter id")
    showing.add_argument(
        "--payload", action="store_true", help="the message, too; not redacted"
    )
    _add_replay(choices.add_parser("replay", help="put messages back on their queue"))
    purging = choices.add_parser("purge", help="delete letters for good")
    _add_which(purging)
    purging.add_argument("--why", required=True, help="the reason, for the audit")
    choices.add_parser("archive", help="store what waits on the broker, now")


def run(options: dict[str, Any], out: TextIO) -> int:
    """Do what is asked: 0; 1 when it could not be done in full, 2 for bad usage."""
    return VERBS[options["action"]](options, out)


def _add_replay(parser: argparse.ArgumentParser) -> None:
    _add_which(parser)
    add = parser.add_argument
    add("--rate", type=asking.positive, metavar="N", help="at most N a second")
    add(
        "--canary",
        action="store_true",
        help="one first, for 30 s at most; the rest unless it dies",
    )
    # Django keeps the name "args" for itself.
    edit = functools.partial(parser.add_argument, metavar="JSON")
    edit("--args", dest="new_args", type=asking.json_list, help="for exactly one ID")
    edit("--kwargs", dest="new_kwargs", type=asking.json_object, help="likewise")
    add("--again", action="store_true", help="also what was replayed before")
    add("--why", default="", help="the reason, for the audit")


def _add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="row, task or letter id")
    parser.add_argument("--all", action="store_true", help="every letter")
    _add_filters(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", metavar="NAME", default="", help="of this task")
    add("--reason", type=asking.reason, help="buried for this reason")
    add("--since", type=asking.instant, metavar="TIME", help="2h, 3d or ISO 8601")
    add("--until", type=asking.instant, metavar="TIME", help="likewise")
    add("--id", dest="task_id", metavar="TASK_ID", default="", help="or its beginning")
    add("--search", dest="text", metavar="TEXT", default="", help="in their details")


def _list(options: dict[str, Any], out: TextIO) -> int:
    if options["limit"] < 1:
        raise UsageError(f"--limit {options['limit']} must be above 0.")
    found = selection.select(**_filters(options))
    total = found.count()
    waiting, trouble = _waiting()
    facts = {
        "total": total,
        "waiting_on_broker": waiting,
        "broker_error": trouble,
    }
    if options["grouped"]:
        groups = selection.groups(found)[: options["limit"]]
        if options["json"]:
            print_json({"groups": groups, **facts}, out)
            return 0
        shown.print_groups(groups, out)
        _say_total(total, total, waiting, trouble)
        return 0
    letters = list(found.defer("message", "traceback", "stack")[: options["limit"]])
    if options["json"]:
        rows = [shown.summary(letter) for letter in letters]
        print_json({"letters": rows, **facts}, out)
        return 0
    shown.print_letters(letters, out)
    _say_total(total, len(letters), waiting, trouble)
    return 0


def _say_total(total: int, printed: int, waiting: int | None, trouble: str) -> None:
    rest = "" if printed == total else f", {printed} shown (--limit)"
    sys.stderr.write(f"{_count(total)}{rest}.\n")
    if waiting is None:
        sys.stderr.write(f"On the broker: could not ask ({trouble})\n")
    elif waiting:
        sys.stderr.write(f"{waiting} more wait on the broker to be archived.\n")


def _waiting() -> tuple[int | None, str]:
    """How many letters are not archived yet, or why nobody knows."""
    try:
        return queue.waiting(project.our_app()), ""
    except Exception as error:
        # Whatever keeps the broker from answering, the list is what was asked for.
        return None, str(error) or type(error).__name__


def _show(options: dict[str, Any], out: TextIO) -> int:
    letter = selection.find(options["id"])
    if ambiguity := _ambiguity(options["id"]):
        sys.stderr.write(f"{ambiguity}\n")
    if options["json"]:
        payload = {"message": shown.payload(letter)} if options["payload"] else {}
        print_json({**shown.details(letter), **payload}, out)
        return 0
    shown.print_letter(letter, out)
    if options["payload"]:
        shown.print_payload(letter, out)
    return 0


def _replay(options: dict[str, Any], out: TextIO) -> int:
    _check_edits(options)
    found = _chosen(options)
    app = project.our_app()
    if len(options["ids"]) == 1:
        return _replay_one(app, found.get(), options, out)
    if not options["ids"] and not options["again"]:
        found = found.filter(replayed_at__isnull=True)
    number, found = _as_of_now(found)
    question = f"This replays {_count(number)}."
    asks = number and not options["ids"]
    if asks and not asking.confirm(question, yes=options["yes"]):
        return _nothing_done()
    report = operations.replay_many(
        app,
        found,
        who=asking.who(),
        why=options["why"],
        rate=options["rate"],
        canary=options["canary"],
        again=options["again"],
        on_progress=_progress,
    )
    return _say_report(report, options["json"], out)


def _check_edits(options: Mapping[str, Any]) -> None:
    if _edited(options) and len(options["ids"]) != 1:
        raise UsageError("--args and --kwargs go with exactly one ID.")


def _edited(options: Mapping[str, Any]) -> bool:
    return options["new_args"] is not None or options["new_kwargs"] is not None


def _replay_one(
    app: Any, letter: DeadLetter, options: Mapping[str, Any], out: TextIO
) -> int:
    if _edited(options):
        project.load_tasks(app)  # their signatures say what fits
    task_id = operations.replay_letter(
        app,
        letter,
        who=asking.who(),
        why=options["why"],
        args=options["new_args"],
        kwargs=options["new_kwargs"],
        again=options["again"],
    )
    report = ReplayReport(total=1, replayed={letter.pk: task_id})
    return _say_report(report, options["json"], out)


def _say_report(report: ReplayReport, as_json: bool, out: TextIO) -> int:
    status = 1 if report.skipped or report.stopped or report.died else 0
    if as_json:
        data = {
            "replayed": report.replayed,
            "skipped": report.skipped,
            "left": report.left,
            "died": report.died,
            "canary": report.canary,
            "stopped": report.stopped,
        }
        print_json(data, out)
        return status
    for row, task_id in report.replayed.items():
        out.write(f"{row} replayed as {task_id}\n")
    for row, why in list(report.skipped.items())[:NAMED_SKIPS]:
        sys.stderr.write(f"{row} skipped: {why}\n")
    if report.stopped:
        sys.stderr.write(f"Stopped, {report.left} left alone: {report.stopped}\n")
    sys.stderr.write(
        f"{len(report.replayed)} of {_count(report.total)} replayed, "
        f"{len(report.skipped)} skipped, {report.died} dead again.\n"
    )
    return status


def _progress(report: ReplayReport) -> None:
    if sys.stderr.isatty():
        done = len(report.replayed) + len(report.skipped)
        end = "\n" if done == report.total or report.stopped else ""
        sys.stderr.write(f"\r{done} of {report.total}{end}")
        sys.stderr.flush()


def _purge(options: dict[str, Any], out: TextIO) -> int:
    number, found = _as_of_now(_chosen(options))
    question = f"This deletes {_count(number)} for good."
    if number and not asking.confirm(question, yes=options["yes"]):
        return _nothing_done()
    purged = operations.purge(found, who=asking.who(), why=options["why"])
    if options["json"]:
        print_json({"purged": purged}, out)
    else:
        out.write(f"{_count(purged)} purged.\n")
    return 0


def _archive(options: dict[str, Any], out: TextIO) -> int:
    # The recorder's process module is not for those who only look.
    from unstuck.recorder import process

    app = project.our_app()
    # The names of a task's parameters say which arguments are secret.
    project.load_tasks(app)
    with operations.broker_errors(app):
        archived = process.archive_waiting(app)
    if options["json"]:
        print_json({"archived": archived}, out)
    else:
        out.write(f"{_count(archived)} archived.\n")
    return 0


def _chosen(options: Mapping[str, Any]) -> QuerySet[DeadLetter]:
    """The letters that the command line speaks of.

    Raises ``UsageError`` when it names none, or in two ways, and ``NoSuchLetter`` for
    an id that fits none.
    """
    filters = _filters(options)
    ways = [bool(options["ids"]), options["all"], any(filters.values())]
    if sum(ways) != 1:
        raise UsageError("Say which: IDs, or --all, or filters such as --task.")
    if options["ids"]:
        return _named(options["ids"], yes=options["yes"])
    return selection.select(**filters)


def _as_of_now(found: QuerySet[DeadLetter]) -> tuple[int, QuerySet[DeadLetter]]:
    """How many they are, and these alone: nobody agrees to what is buried later."""
    known = found.aggregate(number=Count("pk"), newest=Max("pk"))
    return known["number"], found.filter(pk__lte=known["newest"] or 0)


def _named(ids: Sequence[str], *, yes: bool) -> QuerySet[DeadLetter]:
    """The letters with these ids; somebody at the terminal is asked what may be two."""
    rows = [selection.find(text).pk for text in ids]
    for ambiguity in filter(None, map(_ambiguity, ids)):
        sys.stderr.write(f"{ambiguity}\n")
        if sys.stdin.isatty() and not asking.confirm("Is the row meant?", yes=yes):
            raise UsageError("Nothing was done. Write more of the id that is meant.")
    return selection.letters().filter(pk__in=rows)


def _ambiguity(text: str) -> str:
    """What to say of digits that are a row, and the beginning of ids as well."""
    rows = selection.rows_begun_by(text.strip())
    return rows and (
        f"{text} is taken for the row. The ids of the rows {rows} begin so, too: for one "
        f"of those write more of it."
    )


def _filters(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in FILTERS}


def _nothing_done() -> int:
    sys.stderr.write("Nothing was done.\n")
    return 1


def _count(letters: int) -> str:
    return f"{letters} dead letter{'' if letters == 1 else 's'}"


VERBS: Mapping[str, Verb] = {
    "list": _list,
    "show": _show,
    "replay": _replay,
    "purge": _purge,
    "archive": _archive,
}
