"""``manage.py unstuck VERB …``; each verb is a module in ``management/verbs``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any, Protocol, TextIO, cast

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from unstuck.core.errors import UnstuckError
from unstuck.management import verbs
from unstuck.management.verbs._asking import UsageError

WITHOUT_JSON = frozenset({"dev", "recorder"})
"""Verbs that run until they are stopped, so that there is nothing to put in JSON."""

USAGE = 2


class Verb(Protocol):
    """What a module in ``management/verbs`` offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of this verb."""

    def run(self, options: dict[str, Any], out: TextIO) -> int:
        """Do it; the result is the exit status: 0 ok, 1 something wrong, 2 usage."""


class Command(BaseCommand):
    """Everything that unstuck can be asked and told from the command line."""

    help = "Look after the tasks of this project."
    # Whoever repairs broken settings needs a command that starts with them.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the verbs, each with its own options."""
        choices = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
        for name, verb in _verbs():
            own = choices.add_parser(name, help=verb.HELP, description=verb.HELP)
            verb.add_arguments(own)
            for leaf in _leaves(own):
                _add_common(leaf, json=name not in WITHOUT_JSON)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the verb; ends the process with its exit status unless that is 0."""
        out = options.get("stdout") or sys.stdout
        name = options["verb"]
        if name is None:
            self.create_parser("manage.py", "unstuck").print_help(out)
            sys.exit(USAGE)
        status = self._run(dict(_verbs())[name], options, out)
        if status:
            sys.exit(status)

    def _run(self, verb: Verb, options: dict[str, Any], out: TextIO) -> int:
        try:
            return verb.run(options, out)
        except UsageError as error:
            self.stderr.write(f"Error: {error}")
            return USAGE
        except (UnstuckError, DatabaseError) as error:
            if options.get("traceback"):
                raise
            for line in _lines(error):
                self.stderr.write(f"Error: {line}")
            return 1


def _verbs() -> Iterator[tuple[str, Verb]]:
    for module in pkgutil.iter_modules(verbs.__path__):
        if not module.name.startswith("_"):
            name = f"{verbs.__name__}.{module.name}"
            yield module.name, cast("Verb", importlib.import_module(name))


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers at the end of the command line: ``dead list``, not ``dead``."""
    nested = [
        action
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    if not nested:
        yield parser
    for action in nested:
        for child in action.choices.values():
            yield from _leaves(child)


def _add_common(parser: argparse.ArgumentParser, *, json: bool) -> None:
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    # Django takes these before the verb; people write them at the end as well.
    for option in ("--settings", "--pythonpath"):
        parser.add_argument(option, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--traceback",
        action="store_true",
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def _lines(error: Exception) -> list[str]:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if isinstance(error, DatabaseError):
        return [
            f"The database failed: {' '.join(lines).rstrip('.')}. "
            f"Can it be reached, and has `manage.py migrate` been run?"
        ]
    return lines
