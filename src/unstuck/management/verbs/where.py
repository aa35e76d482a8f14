"""``manage.py unstuck where TASK_ID``: where a task is, and what could not be asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TextIO

from django.db import Error

from unstuck import project, remote, whereabouts
from unstuck.management.verbs._output import moment, one_line, print_json
from unstuck.management.verbs._untold import untold_in_words
from unstuck.remote import Untold
from unstuck.whereabouts import Place, Whereabouts

HELP = (
    "where a task is: scheduled, queued, reserved, running, done or dead; and what could "
    "not be asked"
)

NOWHERE = 1
HINT = (
    "It may have succeeded: a success leaves no row, unless RECORD_SUCCESSES is on or the "
    "result backend remembers it. An id must be whole."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task."""
    parser.add_argument("task_id", metavar="TASK_ID")


def run(options: dict[str, Any], out: TextIO) -> int:
    """Say it: 0; 1 when nobody who answered knows the task."""
    task_id = options["task_id"].strip()
    found = _everywhere(project.our_app(), task_id)
    status = 0 if found.places else NOWHERE
    if options["json"]:
        print_json(_as_json(task_id, found), out)
        return status
    for place in found.places:
        out.write(one_line(f"{_said(place)}.") + "\n")
    if not found.places:
        rest = "; not all could be asked" if found.untold else ""
        out.write(one_line(f"Nobody who answered knows {task_id}{rest}.") + "\n")
        sys.stderr.write(HINT + "\n")
    for untold in found.untold:
        sys.stderr.write(one_line(f"Not asked: {untold_in_words(untold)}.") + "\n")
    return status


def _everywhere(app: Any, task_id: str) -> Whereabouts:
    try:
        expected = remote.expected_nodes()
        archived = whereabouts.archived(task_id)
    except Error:
        expected, archived = [], Whereabouts(untold=[Untold("database")])
    return whereabouts.now(app, task_id, expected=expected) + archived


def _as_json(task_id: str, found: Whereabouts) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "places": [{"state": place.state, **place.facts} for place in found.places],
        "not_asked": [untold._asdict() for untold in found.untold],
    }


def _said(place: Place) -> str:
    facts = {
        name: moment(value) if isinstance(value, datetime) else value
        for name, value in place.facts.items()
    }
    task = facts.get("task_name") or "it"
    return WORDS[place.state](task, facts)


Said = Callable[[str, Mapping[str, Any]], str]


def _running(task: str, facts: Mapping[str, Any]) -> str:
    pid = f", pid {facts['pid']}" if facts.get("pid") else ""
    span = f" for {facts['seconds']:.1f} s" if "seconds" in facts else ""
    stack = "`unstuck stack` shows where it stands"
    return f"running: {task} on {facts['node']}{pid}{span}{_attempt(facts)}; {stack}"


def _reserved(task: str, facts: Mapping[str, Any]) -> str:
    return (
        f"reserved: {task} is in the hands of {facts['node']}, and has not "
        f"started{_attempt(facts)}"
    )


def _scheduled(task: str, facts: Mapping[str, Any]) -> str:
    at = facts.get("node") or "the broker"
    return f"scheduled: {task} waits on {at} until {facts.get('due')}{_attempt(facts)}"


def _attempt(facts: Mapping[str, Any]) -> str:
    number = facts.get("attempt", 1)
    return f", attempt {number}" if number > 1 else ""


WORDS: Mapping[str, Said] = {
    "running": _running,
    "reserved": _reserved,
    "scheduled": _scheduled,
    "queued": lambda task, facts: (
        f"queued: {task} is number {facts['place']} of the queue {facts['queue']}"
        f"{_attempt(facts)}"
    ),
    "lock": lambda task, facts: (
        f"waits for the lock {facts['lock']}, which process {facts['pid']} on "
        f"{facts['node']} holds"
    ),
    "holds": lambda task, facts: f"holds the lock {facts['lock']}",
    "revoked": lambda task, facts: (
        f"revoked: {facts['by']} drops it should it come there"
    ),
    "outbox": lambda task, facts: (
        f"in the outbox since {facts['written_at']}: {task} is not sent yet"
    ),
    "done": lambda task, facts: (
        f"done: its result is {facts['result']}, at {facts.get('at') or '?'}"
    ),
    "result": lambda task, facts: f"its result is {facts['result']}",
    "dead": lambda task, facts: (
        f"dead: {task} was buried at {facts['buried_at']} ({facts['reason']}), letter "
        f"{facts['pk']}"
    ),
    "replayed": lambda task, facts: (
        f"dead at {facts['buried_at']} ({facts['reason']}), letter {facts['pk']}, and "
        f"replayed as {facts['replayed_as']}"
    ),
    "ran": lambda task, facts: (
        f"attempt {facts['attempt']} of {task} ended at {facts['ended_at']} on "
        f"{facts['node'] or '?'}: {facts['ending']}"
    ),
}
