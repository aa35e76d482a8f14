"""``manage.py unstuck probe``: ask the workers of this host how they are."""

from __future__ import annotations

from typing import Any, TextIO

from unstuck import conf
from unstuck.probes import command

HELP = "is a worker of this host live, ready, working? (`unstuck probe` costs less)"

add_arguments = command.add_arguments


def run(options: dict[str, Any], out: TextIO) -> int:
    """Ask: 0 when all are well."""
    given = options["runtime_dir"] or conf.current().runtime_dir
    return command.run({**options, "runtime_dir": given}, out)
