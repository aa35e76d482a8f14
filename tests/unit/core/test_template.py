"""Names made of arguments: what can be written, and that nothing else can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unstuck.core.template import Template, nearest

ORDER = SimpleNamespace(pk=7, _secret="s")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("plain", "plain"),
        ("report:{user}", "report:ann"),
        ("{user}-{user}", "ann-ann"),
        ("order:{order.pk}", "order:7"),
        ("{data[key]}:{data[2]}:{rows[0]}", "value:two:first"),
        ("{{{user}}}", "{ann}"),
    ],
)
def test_a_field_is_an_argument_or_a_part_of_one(text: str, name: str) -> None:
    """And doubled braces are braces."""
    values = {
        "user": "ann",
        "order": ORDER,
        "data": {"key": "value", 2: "two"},
        "rows": ["first"],
    }
    assert Template.parse(text).render(values) == name


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{0}",
        "{user!r}",
        "{user:>100000000}",
        "{user:{width}}",
        "{order._secret}",
        "{order.__class__}",
        "{order.pk.real}",
        "{data[a][b]}",
        "{data[]}",
        "{user",
        "user}",
        "{ user }",
    ],
)
def test_all_else_that_str_format_can_do_is_refused(text: str) -> None:
    """What comes in messages does not decide how much is printed, nor what is read."""
    with pytest.raises(ValueError, match="are braces as such"):
        Template.parse(text)


def test_it_says_which_arguments_it_asks_for() -> None:
    """Each place, in order."""
    assert Template.parse("{a}:{b.c}:{d[e]}").arguments == ("a", "b", "d")


@pytest.mark.parametrize("values", [{"a": {}}, {"a": None}, {"b": 1}, {"a": {"x": 1}}])
def test_what_is_not_there_cannot_be_printed(values: dict[str, Any]) -> None:
    """Whoever renders says of which call that is."""
    with pytest.raises((LookupError, TypeError)):
        Template.parse("{a[key]}").render(values)


def test_the_nearest_word() -> None:
    """Or none, rather than one that nobody meant."""
    assert nearest("skp", ["skip", "wait"]) == " Did you mean 'skip'?"
    assert nearest("zebra", ["skip", "wait"]) == ""
