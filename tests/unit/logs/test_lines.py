"""Every line of ours: a constant text, and what varies in fields."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import unstuck
from unstuck.fields import Fields, constant

SOURCE = Path(unstuck.__file__).parent
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
TASK = r"[Tt]ask %\(task\)s"
TEXT = re.compile(rf"(?:{TASK}|[^%])*?(?:: %\(fields\)s)?")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Where a line is written, and how."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            ):
                continue
            whose = node.func.value
            if isinstance(whose, ast.Name) and whose.id == "logger":
                assert node.func.attr in METHODS, ast.unparse(node)
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node


def texts(node: ast.expr) -> list[str]:
    """The texts that an expression can be; constants only."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    assert isinstance(node, ast.Constant), ast.unparse(node)
    return [str(node.value)]


def test_each_line_has_a_constant_text() -> None:
    """No line is built of what varies: it can be counted by its text."""
    found = list(calls())

    assert len(found) > 80
    for where, call in found:
        arguments = call.args[1:] if call.func.attr == "log" else call.args  # type: ignore[attr-defined]
        for text in texts(arguments[0]):
            assert TEXT.fullmatch(text), f"{where}: {text}"
            places = "%(" in text
            assert len(arguments) == (2 if places else 1), f"{where}: {text}"
        assert "extra" not in {keyword.arg for keyword in call.keywords}, where


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (7, "7"),
        (None, "None"),
        ("report:42", "report:42"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "no"', r'"say \"no\""'),
        ("two\nlines", r'"two\nlines"'),
        ("null\x00", r'"null\u0000"'),
        ("ein Käse", '"ein Käse"'),
        (ValueError("no"), '"ValueError: no"'),
        (ValueError(), "ValueError"),
    ],
)
def test_a_field_is_one_word_or_in_quotes(value: object, shown: str) -> None:
    """So it can be told from what follows, and stays in its line."""
    assert Fields(it=value)["fields"] == f"it={shown}"


def test_a_line_reads_as_text_whoever_formats_it() -> None:
    """Formatters of the project see the fields as well, and the text without them."""
    text = "Task %(task)s is buried: %(fields)s"
    given = Fields(task_id="4f0c", task_name="shop.pay", reason="failed")
    record = logging.LogRecord("unstuck", logging.ERROR, "", 1, text, (given,), None)

    assert record.getMessage() == "Task shop.pay[4f0c] is buried: reason=failed"
    assert record.args == given
    assert constant(record.msg) == "Task is buried"


def test_an_unknown_place_is_an_error() -> None:
    """A text has two places and no others."""
    with pytest.raises(KeyError):
        Fields(why="no")["reason"]
