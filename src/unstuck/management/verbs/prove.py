"""``manage.py unstuck prove``: kill and freeze workers on this broker, count every task."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from unstuck import project
from unstuck.core.errors import ProofFailed
from unstuck.management.verbs._asking import UsageError, positive
from unstuck.management.verbs._output import print_json, print_table
from unstuck.prove import blows, report
from unstuck.prove.proof import Order, Result, prove

HELP = (
    "send tasks on this project's broker, kill and freeze workers of its own meanwhile, "
    "and show what became of every task"
)
SECONDS = 45.0
MOST_SECONDS = 3600
TASKS_A_SECOND = 5
MOST_TASKS_A_SECOND = 50
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long, how often, how many."""
    parser.add_argument(
        "--seconds",
        type=positive,
        default=SECONDS,
        help=f"how long to send and kill ({SECONDS:g}); all takes some 20 s more",
    )
    parser.add_argument(
        "--kills",
        type=_count,
        metavar="N",
        help=f"how often to kill (one in {blows.SECONDS_A_KILL:g} s)",
    )
    parser.add_argument(
        "--tasks",
        type=_count,
        metavar="N",
        help=f"how many tasks to send ({TASKS_A_SECOND} a second)",
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Prove it: 0; 1 when something is missing, or when it could not be done."""
    order = _order(options)
    if sys.platform != "linux":
        raise UsageError("prove needs Linux: so does the pool whose children it kills.")

    def say(line: str) -> None:
        if not options["json"]:
            out.write(f"{line}\n")
            out.flush()

    # What our part in the broker has to say of dead nodes is not news here.
    logging.getLogger("unstuck").addHandler(logging.NullHandler())
    try:
        with _stoppable():
            result = prove(project.our_app(), order, say)
    except KeyboardInterrupt as stopped:
        raise ProofFailed(
            f"Stopped by {stopped}: nothing is proved, and nothing is left."
        ) from None
    if options["json"]:
        print_json(report.as_data(result), out)
    else:
        _print(result, out)
    return 0 if result.is_proved else 1


def _order(options: dict[str, Any]) -> Order:
    seconds, kills, tasks = (options[name] for name in ("seconds", "kills", "tasks"))
    fit = blows.fit_into(seconds)
    if not fit or seconds > MOST_SECONDS:
        least = f"{blows.PAUSE_SECONDS:g}"
        raise UsageError(f"--seconds {seconds:g}: must be {least} to {MOST_SECONDS}.")
    if kills is not None and kills > fit:
        raise UsageError(
            f"--kills {kills}: at most {fit} fit into {seconds:g} s. Give fewer, or "
            f"--seconds {kills * blows.PAUSE_SECONDS:g}."
        )
    most = int(seconds * MOST_TASKS_A_SECOND)
    if tasks is not None and tasks > most:
        raise UsageError(
            f"--tasks {tasks}: at most {most} fit into {seconds:g} s. Give fewer, or "
            f"--seconds {tasks / MOST_TASKS_A_SECOND:g}."
        )
    return Order(
        seconds=seconds,
        kills=kills or blows.kills_for(seconds),
        tasks=tasks or max(1, int(seconds * TASKS_A_SECOND)),
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0.")
    return int(text)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` on the first signal that ends us, and on no other.

    Cleaning up is bounded, and must not be cut short. What others catch must not catch it.
    """

    def stop(number: int, _: object) -> NoReturn:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        os.write(2, "Cleaning up …\n".encode())
        raise KeyboardInterrupt(signal.Signals(number).name)

    # What `nohup` has us ignore stays ignored.
    heard = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    earlier = [(number, signal.signal(number, stop)) for number in heard]
    try:
        yield
    finally:
        for number, handler in earlier:
            signal.signal(number, handler)


def _print(result: Result, out: TextIO) -> None:
    for headings, rows in report.tables(result):
        out.write("\n")
        print_table([str(heading) for heading in headings], rows, out)
    for remark in report.remarks(result):
        out.write(f"\n{remark}\n")
    out.write(f"\n{report.conclusion(result)}\n")
