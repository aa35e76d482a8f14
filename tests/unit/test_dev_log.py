"""The log of `unstuck dev`."""

from __future__ import annotations

import io

import pytest

from unstuck.dev.log import Log, wants_colour


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


class Gone(io.StringIO):
    """A stream whose reader has left."""

    def write(self, text: str) -> int:
        """Fail as a pipe without a reader does."""
        raise BrokenPipeError


@pytest.mark.parametrize(
    ("out", "env", "expected"),
    [
        (io.StringIO(), {}, False),
        (Terminal(), {}, True),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
    ],
)
def test_colour_is_for_terminals(
    out: io.StringIO, env: dict[str, str], expected: bool
) -> None:
    """A terminal or FORCE_COLOR gets colours, unless NO_COLOR forbids them."""
    assert wants_colour(out, env) is expected


def test_each_line_says_whose_it_is() -> None:
    """A line stands behind the name of its process."""
    out = io.StringIO()

    Log(out, colour=False).write("worker", "ready")

    assert out.getvalue() == "worker   | ready\n"


@pytest.mark.parametrize(
    ("colour", "line", "lines"),
    [
        (True, r"no\nTraceback\n  File", 3),
        (True, r'{"text": "no\nTraceback"}', 1),
        (False, r"no\nTraceback\n  File", 1),
    ],
)
def test_a_traceback_is_unfolded_for_eyes(colour: bool, line: str, lines: int) -> None:
    """A worker writes one line an event; each part says whose it is."""
    out = io.StringIO()

    Log(out, colour=colour).write("worker", line)

    written = out.getvalue().splitlines()
    assert len(written) == lines
    assert all("worker   |" in part for part in written)


def test_each_name_keeps_a_colour_of_its_own() -> None:
    """Two processes differ in colour; one process does not change its own."""
    out = io.StringIO()
    log = Log(out, colour=True)

    for name in ("worker", "beat", "worker"):
        log.write(name, "")

    first, second, third = out.getvalue().splitlines()
    assert first == third
    assert first.partition("m")[0] != second.partition("m")[0]


def test_a_reader_that_leaves_closes_the_log() -> None:
    """Writing where nobody reads raises nothing and is remembered."""
    log = Log(Gone(), colour=False)

    log.say("hello")
    log.say("is anybody there?")

    assert not log.is_open
