"""Stacks and tracebacks for people: where it was, and what may be shown of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unstuck.core.frames import is_foreign
from unstuck.letters.letter import OTHERS, SEPARATOR

FRAME = re.compile(
    r'^[\s|]*File "(?P<path>[^"\n]+)", line (?P<line>\d+), in (?P<function>\S+)[^\n]*'
    r"(?:\n[\s|]+(?P<code>\S[^\n]*))?",
    re.M,
)
RAISED = re.compile(r"[\s|+]*(?P<type>[A-Za-z_][\w.]*)(?::|$)")
JOINTS = (
    "Traceback (most recent call last):",
    "Stack (most recent call last):",
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
HIDDEN = "[message hidden: needs unstuck.view_payload]"


@dataclass(frozen=True, slots=True)
class Place:
    """The frame of the project's own code that was the innermost."""

    function: str
    file: str
    line: int
    code: str


def place_of(stack: str) -> Place | None:
    """Where a stack stood, or a traceback began, in the project's own code."""
    of_task = OTHERS.split(stack, maxsplit=1)[0]
    own = [match for match in FRAME.finditer(of_task) if not is_foreign(match["path"])]
    if not own:
        return None
    last = own[-1]
    code = (last["code"] or "").strip()
    return Place(
        last["function"],
        "/".join(SEPARATOR.split(last["path"])[-2:]),
        int(last["line"]),
        "" if code.startswith("File ") else code,
    )


def without_messages(traceback: str) -> str:
    """A traceback without what its exceptions say, for messages quote arguments.

    Frames, their code and the types of exceptions stay; all else goes, also what looks
    like nothing in particular.
    """
    shown: list[str] = []
    in_frames, code_may_follow = False, False
    for line in traceback.splitlines():
        stripped = line.strip(" |+-")
        if stripped in JOINTS or FRAME.match(line):
            in_frames, code_may_follow = True, bool(FRAME.match(line))
            shown.append(line)
        elif in_frames and code_may_follow and line.startswith((" ", "  |")):
            # One line of code, and the marks below it.
            code_may_follow = False
            shown.append(line)
        elif in_frames and stripped and not stripped.strip("^~ "):
            shown.append(line)
        elif in_frames and (raised := RAISED.match(line)):
            in_frames = False
            shown.append(f"{raised['type']}: {HIDDEN}")
    return "\n".join(shown)
