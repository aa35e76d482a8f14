"""Stacks and tracebacks for people: where it was, and what may be shown of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unstuck.core.frames import is_foreign
from unstuck.letters.letter import OTHERS, SEPARATOR

FRAME = re.compile(
    r'^(?P<margin>[ \t|]*)File "(?P<path>[^"\n]+)", line (?P<line>\d+), '
    r"in (?P<function>\S+)[^\n]*"
    # Code is deeper than its frame; a frame without any is followed by the exception.
    r"(?:\n(?P=margin)[ \t]+(?P<code>\S[^\n]*))?",
    re.M,
)
RAISED = re.compile(r"[\s|+]*(?P<type>[A-Za-z_][\w.<>]*)(?::|$)")
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


def by_thread(stack: str) -> list[str]:
    """The stack of the thread that it is about, and those of the others, if any."""
    others = OTHERS.search(stack)
    at = others.start() if others else len(stack)
    return [part.strip("\n") for part in (stack[:at], stack[at:]) if part]


def without_messages(traceback: str) -> str:
    """A traceback without what its exceptions say, for messages quote arguments.

    Frames, their code and the types of exceptions stay; all else goes, also what looks
    like nothing in particular.
    """
    shown: list[str] = []
    in_frames, margin, code_may_follow = False, "", False
    for line in traceback.splitlines():
        stripped = line.strip(" |+-")
        code_follows, code_may_follow = code_may_follow, False
        if frame := FRAME.match(line):
            in_frames, margin, code_may_follow = True, frame["margin"], True
            shown.append(line)
        elif stripped in JOINTS:
            in_frames, margin = True, "  "
            shown.append(line)
        elif in_frames and line.startswith(margin):
            # One line of code, and the marks below it. Code is deeper than its frame:
            # of a frame without any, the exception may come next.
            is_code = code_follows and line[len(margin) :].startswith((" ", "\t"))
            if is_code or not stripped.strip("^~ "):
                shown.append(line)
        elif in_frames:
            in_frames = False
            if raised := RAISED.match(line):
                shown.append(f"{raised['type']}: {HIDDEN}")
    return "\n".join(shown)
