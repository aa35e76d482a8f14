"""``manage.py unstuck recorder``: the recorder on its own, in the foreground."""

from __future__ import annotations

import argparse
from typing import Any, TextIO

from unstuck import project

HELP = (
    "archive dead letters and send what waits in the outbox until SIGTERM or Ctrl-C; "
    "every worker does this by itself"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: dict[str, Any], out: TextIO) -> int:
    """Run until it is asked to stop: 0."""
    from unstuck.recorder import process

    app = project.our_app()
    # The names of a task's parameters say which arguments are secret.
    project.load_tasks(app)
    out.write("The recorder archives dead letters; Ctrl-C ends it.\n")
    out.flush()
    try:
        process.run(app)
    except KeyboardInterrupt:
        return 0
    return 0
