"""Dead letters on a terminal and in JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TextIO

from unstuck.management.verbs._output import moment, one_line, print_table, printable
from unstuck.models import DeadLetter

WIDEST = 60
"""Of an exception in a table."""

SUMMARY = (
    "id",
    "letter_id",
    "task_id",
    "task_name",
    "queue",
    "reason",
    "cause",
    "exception_type",
    "exception_message",
    "fingerprint",
    "attempts",
    "deliveries",
    "node",
    "buried_at",
    "replayed_at",
    "replayed_as",
    "replay_of",
)
DETAILS = (
    *SUMMARY,
    "args",
    "kwargs",
    "traceback",
    "stack",
    "soft_stack",
    "waiting_for",
    "pid",
    "runtime_seconds",
    "rss_bytes",
    "cpu_seconds",
    "child_age_seconds",
    "archived_at",
)
TEXTS = ("exception_message", "traceback", "stack", "soft_stack", "waiting_for")
"""What is shown below the rest, because it has several lines."""


def summary(letter: DeadLetter) -> dict[str, Any]:
    """What ``dead list --json`` says of a letter."""
    return {name: getattr(letter, name) for name in SUMMARY}


def details(letter: DeadLetter) -> dict[str, Any]:
    """What ``dead show --json`` says of a letter; arguments are redacted."""
    return {name: getattr(letter, name) for name in DETAILS}


def payload(letter: DeadLetter) -> dict[str, Any]:
    """The message itself, arguments in clear."""
    message = letter.stored_message()
    try:
        body: dict[str, str] = {"body": message.body.decode("utf-8")}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(message.body).decode("ascii")}
    return {
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "headers": dict(message.headers),
        "properties": dict(message.properties),
        **body,
    }


def print_letters(found: Iterable[DeadLetter], out: TextIO) -> None:
    """Print a line for each letter."""
    rows = [
        (
            letter.pk,
            letter.task_id or "-",
            letter.task_name or "-",
            letter.reason,
            letter.attempts,
            moment(letter.buried_at),
            moment(letter.replayed_at),
            _shortened(_ending(letter)),
        )
        for letter in found
    ]
    headings = (
        "id", "task id", "task", "reason", "attempts", "buried", "replayed", "ending",
    )  # fmt: skip
    print_table(headings, rows, out)


def print_groups(groups: Sequence[dict[str, Any]], out: TextIO) -> None:
    """Print a line for each kind of trouble."""
    rows = [
        (
            group["count"],
            group["reason"],
            group["task_name"] or "-",
            moment(group["first"]),
            moment(group["last"]),
            group["fingerprint"],
        )
        for group in groups
    ]
    print_table(("letters", "reason", "task", "first", "last", "what"), rows, out)


def print_letter(letter: DeadLetter, out: TextIO) -> None:
    """Print everything that is known of one letter but its message."""
    facts = details(letter)
    short = {name: value for name, value in facts.items() if name not in TEXTS}
    width = max(map(len, short))
    for name, value in short.items():
        out.write(f"{name.ljust(width)}  {one_line(_fact(value))}\n")
    for name in TEXTS:
        if facts[name]:
            out.write(f"\n{name}\n{printable(facts[name].rstrip())}\n")


def print_payload(letter: DeadLetter, out: TextIO) -> None:
    """Print the message itself."""
    out.write("\nmessage\n")
    for name, value in payload(letter).items():
        out.write(f"{name}: {printable(str(value))}\n")


def _fact(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    return "-" if value is None or value == "" else str(value)


def _ending(letter: DeadLetter) -> str:
    exception = ": ".join(
        part for part in (letter.exception_type, letter.exception_message) if part
    )
    return letter.cause or exception or "-"


def _shortened(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
