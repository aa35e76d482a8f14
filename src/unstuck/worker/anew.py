"""Loading the whole program anew, by a SIGHUP, in the process that it is."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from unstuck.worker.sdnotify import Notifier


def start_anew(notifier: Notifier) -> NoReturn:
    """Begin the program again with the same pid, after all its processes have ended."""
    notifier.give_back_to(os.environ)
    arguments = _for_here(sys.orig_argv[1:])
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606


def _for_here(arguments: list[str]) -> list[str]:
    """What was done to this process is not to be done again.

    We are in the directory, where a relative one would be looked for in itself; and whoever
    waits for this pid would lose us to another one.
    """
    left = [argument for argument in arguments if argument != "--detach"]
    while "--workdir" in left:
        place = left.index("--workdir")
        del left[place : place + 2]
    return [argument for argument in left if not argument.startswith("--workdir=")]
