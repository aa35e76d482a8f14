"""What people write on the command line, and asking them back."""

from __future__ import annotations

import argparse
import difflib
import getpass
import json
import os
import re
import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
AGE = re.compile(r"(\d{1,6})([smhdw])")


class UsageError(Exception):
    """A command line that parses, but does not make sense: exit status 2."""


def instant(text: str) -> datetime:
    """An instant from ISO 8601, or from an age such as ``2h`` or ``3d``."""
    try:
        # In UTC, where the first and the last days of the calendar may not be.
        return _instant(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        message = (
            f"{text!r} is no time. Write an age such as 30m, 2h or 3d, or a time "
            f"such as 2026-05-31 or 2026-05-31T14:00."
        )
        raise argparse.ArgumentTypeError(message) from None


def _instant(text: str) -> datetime:
    if match := AGE.fullmatch(text.lower()):
        return system_clock() - timedelta(**{UNITS[match[2]]: int(match[1])})
    parsed = datetime.fromisoformat(text)
    return parsed if timezone.is_aware(parsed) else timezone.make_aware(parsed)


def reason(text: str) -> Reason:
    """A reason why letters are buried."""
    try:
        return Reason(text)
    except ValueError:
        near = difflib.get_close_matches(text, [known.value for known in Reason], n=1)
        remedy = f"Did you mean {near[0]!r}? " if near else ""
        message = f"{text!r} is no reason. {remedy}There are: {', '.join(Reason)}."
        raise argparse.ArgumentTypeError(message) from None


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0.")
    return number


def json_list(text: str) -> list[Any]:
    """A JSON array, for positional arguments."""
    value = _json(text)
    if not isinstance(value, list):
        raise argparse.ArgumentTypeError(f"{text!r} must be a JSON array.")
    return value


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, for keyword arguments."""
    value = _json(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} must be a JSON object.")
    return value


def confirm(question: str, *, yes: bool) -> bool:
    """Whether to go on: ``--yes``, or somebody at the terminal who says so.

    Raises ``UsageError`` when there is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Add --yes to do it; there is nobody to ask.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def who() -> str:
    """Whom an audit entry of the command line names."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        message = f"{text!r} is not JSON: {error}"
        raise argparse.ArgumentTypeError(message) from error
