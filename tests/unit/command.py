"""``manage.py unstuck …`` within the process of the test."""

from __future__ import annotations

from typing import Any

from unstuck.management.commands.unstuck import Command


def unstuck(*words: str) -> Any:
    """Run the command line; returns the exit status, and prints what it prints."""
    command = Command()
    command._called_from_command_line = True
    try:
        parser = command.create_parser("manage.py", "unstuck")
        options = vars(parser.parse_args(words))
        command.execute(*options.pop("args", ()), **options)
    except SystemExit as ended:
        return ended.code
    return 0
