"""Stacks to be read by people, from what ``faulthandler`` wrote or from a frame."""

from __future__ import annotations

import linecache
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile, groupby
from types import FrameType
from typing import TypeAlias

from unstuck.core import frames

HERE = "  <-- here"
MOST_FRAMES = 100
"""As many as ``faulthandler`` writes."""

REPEATS_SHOWN = 3
"""As many as Python shows of a frame that called itself."""

HEADER = re.compile(
    r"(?P<current>Current thread|Thread) 0x(?P<ident>[0-9a-f]+)(?P<name>.*)"
    r" \(most recent call first\):"
)
FRAME = re.compile(
    r'  File (?:"(?P<path>.*)"|\?\?\?), line (?P<line>\d+|\?\?\?) in (?P<function>.+)'
)
ESCAPED = re.compile(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}")
FATAL = "Fatal Python error"

CUT = "  ..."
THREADS_CUT = b"\n...\n"

BOTTOMS = ("<module>", "_run_module_as_main")
"""Functions that nobody calls."""

BOTTOM_OF_THREAD = "_bootstrap"

AROUND_TASK = re.compile(
    r"[/\\]celery[/\\]app[/\\](?:trace|task|autoretry)\.py$"
    r"|[/\\]unstuck[/\\]worker[/\\]task\.py$"
)
"""Files whose frames come right before those of the task."""

MACHINERY = re.compile(
    r"[/\\](?:site|dist)-packages[/\\](?:celery|kombu|billiard|click)[/\\]"
    r"|[/\\]unstuck[/\\](?:pool|worker)[/\\]"
    r"|[/\\]bin[/\\]celery$"
    r"|^<frozen runpy>$"
)
"""Whose frames come before those of the project where no task runs."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One call in a stack."""

    path: str
    line: int
    function: str


Entry: TypeAlias = Frame | str
"""A line of a stack; text is passed on as it is, like the dots for what was cut."""


@dataclass(slots=True)
class Thread:
    """What a dump has of one thread, the most recent call first."""

    ident: int
    name: str
    is_current: bool
    entries: list[Entry] = field(default_factory=list)


def is_complete(dump: bytes, main_thread: int | None = None) -> bool:
    """Whether a dump by signal looks finished.

    CPython writes the oldest thread last, which is the main thread. Whoever knows its
    ident is sure not to take the end of another thread for the end of the dump.
    """
    if dump.endswith(THREADS_CUT):
        return True
    _, threads = _parsed(_text(dump))
    if not threads or not dump.endswith(b"\n") or dump.endswith(b"\n\n"):
        return False
    last = threads[-1]
    if main_thread is None:
        return _has_bottom(last, BOTTOMS)
    # A process that a thread forked has the bottom of that thread in its main thread.
    return last.ident == main_thread and _has_bottom(last, (*BOTTOMS, BOTTOM_OF_THREAD))


def readable(
    dump: bytes,
    main_thread: int | None,
    is_foreign: Callable[[str], bool] = frames.is_foreign,
) -> str:
    """A dump of ``faulthandler`` in the form of Python's tracebacks.

    The main thread comes first, or the thread that crashed; of that one the part below
    the task is left out, and the innermost frame of the project's own code is marked.
    Of an empty, cut or spoiled dump, whatever can be read.
    """
    text = _text(dump)
    crash = text.rfind(FATAL)  # It may follow what was asked for by signal before.
    said, threads = _parsed(text[max(crash, 0) :])
    parts = ["\n".join(said)]
    if threads:
        first = _first(threads, main_thread, crashed=crash >= 0)
        parts.append(_main_stack(first.entries[::-1], is_foreign))
        others = [thread for thread in threads if thread is not first]
        parts += [frames.OTHER_THREADS] if others else []
        parts += [_other_stack(thread) for thread in others]
    return "\n\n".join(part for part in parts if part)


def is_fatal(dump: bytes) -> bool:
    """Whether it tells of a crash, not only of where the process once stood."""
    return FATAL.encode() in dump


def of_frame(frame: FrameType) -> str:
    """The stack of a live frame of this process, in the same form."""
    summary = traceback.extract_stack(frame, limit=MOST_FRAMES + 1)
    entries: list[Entry] = [
        Frame(call.filename, call.lineno or 0, call.name)
        for call in summary[-MOST_FRAMES:]
    ]
    if len(summary) > MOST_FRAMES:
        entries.insert(0, CUT)
    return _main_stack(entries, frames.is_foreign)


# Reading.


def _parsed(text: str) -> tuple[list[str], list[Thread]]:
    """What was said before the stacks, and the threads."""
    said: list[str] = []
    threads: list[Thread] = []
    open_thread = False
    for line in text.splitlines():
        if header := HEADER.fullmatch(line):
            threads.append(_thread(header))
            open_thread = True
        elif open_thread and line.startswith("  "):
            threads[-1].entries += _entries(line)
        else:
            open_thread = False
            said += [line] if line and not threads else []
    for thread in threads:
        _mark_cut(thread)
    return said, threads


def _mark_cut(thread: Thread) -> None:
    """Python 3.13 does not say that there were more frames."""
    is_whole = _has_bottom(thread, (*BOTTOMS, BOTTOM_OF_THREAD))
    if len(thread.entries) >= MOST_FRAMES and not is_whole:
        thread.entries.append(CUT)


def _has_bottom(thread: Thread, functions: tuple[str, ...]) -> bool:
    """Whether its outermost call is there, or what stands in its place."""
    match thread.entries[-1:]:
        case [Frame(function=function)]:
            return function in functions
        case [str(text)]:
            return text == CUT or text.startswith("  <")
    return False


def _thread(header: re.Match[str]) -> Thread:
    is_current = header["current"].startswith("Current")
    return Thread(int(header["ident"], 16), header["name"], is_current)


def _entries(line: str) -> list[Entry]:
    if match := FRAME.fullmatch(line):
        number = match["line"]
        return [
            Frame(
                ESCAPED.sub(_unescaped, match["path"] or "???"),
                int(number) if number.isdigit() else 0,
                ESCAPED.sub(_unescaped, match["function"]),
            )
        ]
    is_cut_frame = line.startswith("  File")
    return [] if is_cut_frame else [line]


def _unescaped(match: re.Match[str]) -> str:
    # Neither half characters, which no database takes, nor what moves a cursor.
    code = int(match[0][2:], 16)
    character = chr(code) if code <= 0x10FFFF else ""
    return character if character.isprintable() else match[0]


def _first(threads: list[Thread], main_thread: int | None, crashed: bool) -> Thread:
    current = [thread for thread in threads if thread.is_current]
    main = [thread for thread in threads if thread.ident == main_thread]
    wanted = current + main if crashed else main + current
    return wanted[0] if wanted else threads[-1]


def _text(dump: bytes) -> str:
    # A file cut while it is written begins with NULs, and no database takes them.
    return dump.decode("utf-8", "replace").replace("\0", "")


# Writing, the most recent call last.


def _main_stack(entries: list[Entry], is_foreign: Callable[[str], bool]) -> str:
    shown = _of_task(entries)
    own = [
        at
        for at, entry in enumerate(shown)
        if isinstance(entry, Frame) and not is_foreign(entry.path)
    ]
    marked = own[-1] if own else None
    return "\n".join(["Stack (most recent call last):", *_lines(shown, marked)])


def _other_stack(thread: Thread) -> str:
    header = f"Thread 0x{thread.ident:016x}{thread.name} (most recent call last):"
    return "\n".join([header, *_lines(thread.entries[::-1], None)])


def _of_task(entries: list[Entry]) -> list[Entry]:
    """Without the machinery around the task, unless there is nothing else."""
    entry_to_task = (at for at, entry in enumerate(entries) if _is(AROUND_TASK, entry))
    start = next(entry_to_task, None)
    if start is None:
        inner = dropwhile(lambda entry: _is(MACHINERY, entry), entries)
    else:
        inner = dropwhile(lambda entry: _is(AROUND_TASK, entry), entries[start:])
    return list(inner) or entries


def _is(files: re.Pattern[str], entry: Entry) -> bool:
    return isinstance(entry, Frame) and bool(files.search(entry.path))


def _lines(entries: Iterable[Entry], marked: int | None) -> Iterator[str]:
    for entry, group in groupby(enumerate(entries), key=lambda numbered: numbered[1]):
        places = [place for place, _ in group]
        for place in places[-REPEATS_SHOWN:]:
            yield from _entry_lines(entry, HERE if place == marked else "")
        if (left := len(places) - REPEATS_SHOWN) > 0:
            times = f"{left} more time{'s' if left > 1 else ''}"
            yield f"  [Previous line repeated {times}]"


def _entry_lines(entry: Entry, marker: str) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
        return
    yield f'  File "{entry.path}", line {entry.line}, in {entry.function}{marker}'
    if source := _source(entry):
        yield f"    {source}"


def _source(frame: Frame) -> str:
    # Anything but a file, say /dev/stdin, could make us wait for it.
    if not os.path.isfile(frame.path):
        return ""
    linecache.checkcache(frame.path)
    return linecache.getline(frame.path, frame.line).strip()
