"""When a task is published: the nearest one who says something decides."""

from __future__ import annotations

from typing import Any

import pytest

from unstuck.core.publish import at_once, meant, problem_with, waits_for_commit


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ((), False),
        ((None, None, "at_once"), False),
        ((None, None, "on_commit"), True),
        ((None, "at_once", "on_commit"), False),
        ((None, "on_commit", "at_once"), True),
        (("at_once", "on_commit", "on_commit"), False),
        (("on_commit", "at_once", "at_once"), True),
    ],
)
def test_the_first_that_says_something_decides(
    said: tuple[Any, ...], waits: bool
) -> None:
    """Call, task, project."""
    assert waits_for_commit(*said) is waits


def test_at_once_is_stronger_than_all() -> None:
    """But not than a mistake; and it ends with its block."""
    with at_once():
        assert not waits_for_commit("on_commit")
        with at_once():
            pass
        assert not waits_for_commit("on_commit")
        with pytest.raises(ValueError, match="publish='later' must be"):
            waits_for_commit("later")
    assert waits_for_commit("on_commit")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("commit", "on_commit"),
        ("ON_COMMIT", "on_commit"),
        ("on-commit", "on_commit"),
        ("atonce", "at_once"),
        ("", None),
        (True, None),
        (7, None),
        (["on_commit"], "on_commit"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(wrong: Any, near: str | None) -> None:
    """As far as anything is near."""
    assert meant(wrong) == near
    assert problem_with(wrong).startswith("must be 'at_once' or 'on_commit'.")
    assert ("Did you mean" in problem_with(wrong)) is (near is not None)


@pytest.mark.parametrize("right", ["at_once", "on_commit"])
def test_a_choice_has_no_problem(right: str) -> None:
    """There are two."""
    assert problem_with(right) == ""
