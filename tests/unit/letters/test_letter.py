"""Letters: their way over the wire, and what groups them."""

from __future__ import annotations

import importlib
import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.core.verdict import Reason
from unstuck.letters.letter import FINGERPRINT_LENGTH, Letter, guilty_frame
from unstuck.letters.message import StoredMessage

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
HERE = "letters/test_letter.py"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
messages = st.builds(
    StoredMessage,
    body=st.binary(),
    content_type=st.text(),
    content_encoding=st.text(),
    headers=st.dictionaries(st.text(), json_values, max_size=4),
    properties=st.dictionaries(st.text(), json_values, max_size=4),
    queue=st.text(),
)
letters = st.builds(
    Letter,
    message=messages,
    task_id=st.text(),
    task_name=st.text(),
    reason=st.sampled_from(Reason),
    buried_at=st.datetimes(timezones=st.just(UTC)),
    cause=st.text(),
    exception_type=st.text(),
    exception_message=st.text(),
    traceback=st.text(),
    stack=st.text(),
    soft_stack=st.text(),
    waiting_for=st.text(),
    attempts=st.integers(),
    deliveries=st.integers(),
    node=st.text(),
    pid=st.none() | st.integers(),
    runtime_seconds=st.none() | st.floats(allow_nan=False),
    rss_bytes=st.none() | st.integers(),
    cpu_seconds=st.none() | st.floats(allow_nan=False),
    child_age_seconds=st.none() | st.floats(allow_nan=False),
    id=st.uuids().map(str),
)


def letter(**facts: Any) -> Letter:
    """A letter of which only the named facts matter."""
    known = {
        "message": StoredMessage(body=b"[]"),
        "task_id": "id",
        "task_name": "shop.send",
        "reason": Reason.FAILED,
        "buried_at": NOW,
    }
    return Letter(**{**known, **facts})


def traceback_of(function: Callable[[], object]) -> str:
    """What the tracer would write down when this function raises."""
    try:
        function()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not raise")


def raises_here() -> None:
    """Fail in a frame of our own."""
    raise LookupError("nowhere")


def raises_in_the_standard_library() -> None:
    """Fail below a frame of our own."""
    json.loads("{")


def raises_in_a_package() -> None:
    """Fail in what pip installed, below a frame of our own."""
    st.integers(min_value=2, max_value=1).validate()


def raises_in_import_machinery() -> None:
    """Fail in Python's own frozen modules, which have no file."""
    importlib.import_module("no.such.module")


# The wire.


@given(letters)
def test_a_letter_comes_back_from_the_wire_as_it_was(letter: Letter) -> None:
    """Every field, and the body byte for byte, through real JSON."""
    wire = json.loads(json.dumps(letter.to_wire()))

    assert Letter.from_wire(wire) == letter


@given(letters, st.dictionaries(st.text(min_size=30), json_values, max_size=3))
def test_fields_of_a_newer_version_are_left_out(
    letter: Letter, newer: dict[str, Any]
) -> None:
    """During a rolling upgrade an older recorder archives letters of newer workers."""
    assert Letter.from_wire({**letter.to_wire(), **newer}) == letter


def test_fields_of_a_newer_message_are_left_out() -> None:
    """Likewise for what a newer version knows of the message itself."""
    sent = letter()
    wire = sent.to_wire()
    wire["message"]["exchange"] = "amq.topic"

    assert Letter.from_wire(wire) == sent


@pytest.mark.parametrize("missing", ["message", "reason", "buried_at"])
def test_what_lacks_the_essence_is_no_letter(missing: str) -> None:
    """An error that the reader knows, not a letter with holes."""
    wire = letter().to_wire()
    del wire[missing]

    with pytest.raises(KeyError):
        Letter.from_wire(wire)


def test_each_burial_has_an_id_of_its_own() -> None:
    """Whoever archives a letter twice finds it by this."""
    assert letter().id != letter().id


# The guilty frame.


def test_the_guilty_frame_is_the_innermost_of_the_project() -> None:
    """Function and place, without line numbers, which change with every edit."""
    text = traceback_of(raises_here)

    assert guilty_frame(text) == f"raises_here ({HERE})"


def test_the_standard_library_is_not_guilty() -> None:
    """It only fell over what the project gave it."""
    text = traceback_of(raises_in_the_standard_library)

    assert "decoder.py" in text
    assert guilty_frame(text) == f"raises_in_the_standard_library ({HERE})"


def test_an_installed_package_is_not_guilty() -> None:
    """Nor is what lives in site-packages."""
    text = traceback_of(raises_in_a_package)

    innermost = [line for line in text.splitlines() if "File " in line][-1]
    assert "site-packages" in innermost
    assert guilty_frame(text) == f"raises_in_a_package ({HERE})"


def test_python_s_frozen_modules_are_not_guilty() -> None:
    """`<frozen importlib._bootstrap>` and `<string>` are nobody's file."""
    text = traceback_of(raises_in_import_machinery)

    assert "<frozen" in text
    assert guilty_frame(text) == f"raises_in_import_machinery ({HERE})"


def test_a_traceback_with_no_frame_of_the_project_blames_nobody() -> None:
    """An empty string, as for no traceback at all."""
    foreign = (
        'Traceback (most recent call last):\n  File "/usr/lib/python3.11/json'
        '/decoder.py", line 5, in decode\n    return x\nValueError: no\n'
    )

    assert guilty_frame(foreign) == ""
    assert guilty_frame("") == ""


def test_the_stack_of_a_stopped_task_has_a_guilty_frame_too() -> None:
    """`traceback.format_stack` writes frames like a traceback."""
    stack = "".join(traceback.format_stack())

    assert guilty_frame(stack).endswith(f"({HERE})")


def test_other_threads_are_not_guilty() -> None:
    """In a stack they come after the thread that ran the task."""
    stack = (
        "Stack (most recent call last):\n"
        '  File "/srv/shop/tasks.py", line 3, in pay  <-- here\n'
        '    print("Other threads:")\n'
        '  File "/usr/lib/python3.11/socket.py", line 7, in readinto\n'
        "\n"
        "Other threads:\n"
        "\n"
        "Thread 0x000000000000002e (most recent call last):\n"
        '  File "/srv/shop/pump.py", line 4, in pump\n'
    )

    assert guilty_frame(stack) == "pay (shop/tasks.py)"


def test_a_path_of_another_system_is_shortened_alike() -> None:
    """Two parts of the path are enough to find the file, and say nothing of the host."""
    text = '  File "C:\\srv\\shop\\tasks.py", line 1, in send\n'

    assert guilty_frame(text) == "send (shop/tasks.py)"


# The fingerprint.


def test_the_same_trouble_has_the_same_fingerprint() -> None:
    """Whatever task, message, node, time and line it was."""
    text = traceback_of(raises_here)
    one = letter(traceback=text, task_id="1", exception_type="LookupError")
    two = letter(
        traceback=text.replace("line ", "line 1"),
        task_id="2",
        exception_type="LookupError",
        exception_message="somewhere else",
        node="other",
    )

    assert one.fingerprint == two.fingerprint
    assert one.fingerprint == f"failed | LookupError | raises_here ({HERE})"


def test_another_reason_or_exception_is_another_trouble() -> None:
    """Three letters, three fingerprints."""
    text = traceback_of(raises_here)

    prints = {
        letter(traceback=text, exception_type="LookupError").fingerprint,
        letter(traceback=text, exception_type="KeyError").fingerprint,
        letter(traceback=text, reason=Reason.REJECTED).fingerprint,
    }

    assert len(prints) == 3


def test_without_a_frame_the_task_stands_for_the_trouble() -> None:
    """A poison letter has no traceback."""
    lost = letter(reason=Reason.POISON)

    assert lost.fingerprint == "poison | shop.send"


def test_where_a_task_was_stopped_counts_more_than_the_traceback() -> None:
    """At a hard limit the stack is the news."""
    stack = '  File "/srv/shop/tasks.py", line 1, in waits\n'

    stopped = letter(stack=stack, traceback=traceback_of(raises_here))

    assert stopped.fingerprint.endswith("waits (shop/tasks.py)")


def test_a_fingerprint_fits_its_column() -> None:
    """However long the names are."""
    assert len(letter(task_name="x" * 999).fingerprint) == FINGERPRINT_LENGTH
