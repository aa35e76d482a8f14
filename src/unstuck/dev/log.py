"""One log for many processes: each line says whose it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import cycle
from typing import TextIO

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Of the terminal: cyan first, and no red, which is for errors."""
WIDTH = 8


def wants_colour(out: TextIO, env: Mapping[str, str]) -> bool:
    """Whether to colour: a terminal, or FORCE_COLOR; never under NO_COLOR."""
    if env.get("NO_COLOR"):
        return False
    return bool(env.get("FORCE_COLOR")) or out.isatty()


class Log:
    """Writes lines behind the name of who said them, in a colour of its own."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._colours = cycle(COLOURS)
        self._prefixes: dict[str, str] = {}
        self.is_open = True
        """False once nobody can read it: the terminal or the pipe is gone."""

    def write(self, name: str, line: str) -> None:
        """Write one line that `name` said; for eyes, a traceback in it as several."""
        for part in line.split(r"\n") if self._unfolds(line) else [line]:
            self._write(f"{self._prefix(name)} {part}\n")

    def say(self, line: str) -> None:
        """Write one line of our own, bold on a terminal."""
        self._write(f"\033[1m{line}\033[0m\n" if self._colour else f"{line}\n")

    def _write(self, text: str) -> None:
        if not self.is_open:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            self.is_open = False
            self._discard()

    def _unfolds(self, line: str) -> bool:
        return self._colour and not line.startswith("{")  # A line of JSON stays one.

    def _discard(self) -> None:
        # What is still in the buffer would raise again when the interpreter closes it.
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._out.fileno())
            os.close(null)
        except (OSError, ValueError):
            return

    def _prefix(self, name: str) -> str:
        if name not in self._prefixes:
            prefix = f"{name:<{WIDTH}} |"
            if self._colour:
                prefix = f"\033[{next(self._colours)}m{prefix}\033[0m"
            self._prefixes[name] = prefix
        return self._prefixes[name]
