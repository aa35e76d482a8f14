"""Arguments as they may be shown and stored."""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.projects import project
from unstuck.core.settings import REDACTED_NAMES
from unstuck.letters.redact import (
    REDACTED,
    clean,
    redacted_args,
    redacted_kwargs,
    storable,
)

NAMES = REDACTED_NAMES
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.text())
        | st.dictionaries(st.text(st.characters()) | st.integers() | st.none(), inner)
    ),
    max_leaves=12,
)


def task_of(function: Any, **options: Any) -> Any:
    """A task of an app."""
    return project().task(shared=False, **options)(function)


# By name.


@pytest.mark.parametrize(
    "name",
    ["password", "PASSWORD", "db_password", "api_key", "Authorization", "csrftoken"],
)
def test_a_secret_name_hides_its_value(name: str) -> None:
    """Anywhere in the name, in any case."""
    assert redacted_kwargs({name: "s3cret"}, NAMES) == {name: REDACTED}


def test_other_names_show_theirs() -> None:
    """Nothing else is touched."""
    kwargs = {"user": 7, "tags": ["a"], "note": None}

    assert redacted_kwargs(kwargs, NAMES) == kwargs


def test_secrets_are_hidden_at_any_depth() -> None:
    """In mappings within lists within mappings; whole values, whatever they are."""
    kwargs = {"user": [{"name": "ann", "auth": ({"Token": "s3cret"},)}], "keys": {"a"}}

    shown = redacted_kwargs(kwargs, NAMES)

    assert shown == {
        "user": [{"name": "ann", "auth": [{"Token": REDACTED}]}],
        "keys": REDACTED,
    }
    assert kwargs["user"] == [{"name": "ann", "auth": ({"Token": "s3cret"},)}]


@given(st.dictionaries(st.text(max_size=3), anything, max_size=3), st.integers(0, 4))
def test_a_secret_is_nowhere_in_what_is_shown(kwargs: Any, depth: int) -> None:
    """However deep it was hidden among whatever else."""
    hidden: Any = {"token": "hunter2"}
    for _ in range(depth):
        hidden = [{"inner": hidden}]

    shown = redacted_kwargs({**kwargs, "inner": hidden}, NAMES)

    assert "hunter2" not in repr(shown)


def test_the_names_are_the_project_s() -> None:
    """`REDACT = ["iban"]` hides that, and nothing else."""
    shown = redacted_kwargs({"IBAN": "DE0", "password": "open"}, ["Iban"])

    assert shown == {"IBAN": REDACTED, "password": "open"}


def test_a_name_need_not_be_a_string() -> None:
    """Pickled arguments may have any keys."""
    assert redacted_kwargs({"map": {1: 2, None: 3}}, NAMES) == {
        "map": {1: 2, None: 3},
    }


# By position.


def test_positional_arguments_are_named_by_their_task() -> None:
    """The signature says which one is the password."""

    def login(user: str, password: str, next: str = "/") -> None: ...

    shown = redacted_args(["ann", "s3cret", "/x"], task_of(login), NAMES)

    assert shown == ["ann", REDACTED, "/x"]


def test_a_bound_task_does_not_count_itself() -> None:
    """`self` is no argument of the message."""

    def login(self: Any, user: str, password: str) -> None: ...

    shown = redacted_args(["ann", "s3cret"], task_of(login, bind=True), NAMES)

    assert shown == ["ann", REDACTED]


def test_a_task_with_autoretry_still_has_its_signature() -> None:
    """Celery wraps its function."""

    def login(user: str, password: str) -> None: ...

    task = task_of(login, autoretry_for=(OSError,))

    assert redacted_args(["ann", "s3cret"], task, NAMES) == ["ann", REDACTED]


def test_positional_values_are_searched_at_any_depth() -> None:
    """A positional mapping has names as well."""

    def send(data: Any) -> None: ...

    shown = redacted_args([{"api_key": "s3cret", "n": 1}], task_of(send), NAMES)

    assert shown == [{"api_key": REDACTED, "n": 1}]


@pytest.mark.parametrize("task", [None, SimpleNamespace(run=3), SimpleNamespace()])
def test_without_a_signature_nothing_is_shown_by_position(task: Any) -> None:
    """Any of them may be the password of a task that nobody here knows."""
    values = ["ann", {"n": 1, "token": "x"}]

    assert redacted_args(values, task, NAMES) == [REDACTED, REDACTED]
    assert redacted_args(values, task, []) == values


def test_of_more_arguments_than_the_signature_has_only_the_number_is_shown() -> None:
    """It is why the task failed; who sent them may know a parameter more."""

    def send(a: int) -> None: ...

    assert redacted_args([1, 2], task_of(send), NAMES) == [1, REDACTED]


def test_all_that_a_secret_star_argument_collects_is_hidden() -> None:
    """`*tokens` names every one of them."""

    def revoke(user: str, *tokens: str) -> None: ...

    shown = redacted_args(["ann", "t1", "t2"], task_of(revoke), NAMES)

    assert shown == ["ann", REDACTED, REDACTED]


# As JSON that every database takes.


@given(anything)
def test_whatever_it_is_becomes_json_that_postgresql_takes(value: Any) -> None:
    """No NaN, no infinity, no NUL, no lone surrogate, no unknown type."""
    text = json.dumps(storable(value), allow_nan=False, ensure_ascii=False)

    text.encode()
    assert "\\u0000" not in text
    assert "\x00" not in text


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (1.5, 1.5),
        (True, True),
        (None, None),
        (10**30, 10**30),
        (-(2**10_000), "-0x1" + "0" * 2500),
        ("a\x00b", "a\\x00b"),
        ("\ud800", "\\ud800"),
        ("é\n", "é\n"),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        ({1: {None: "x"}}, {"1": {"None": "x"}}),
        ({"a\x00": 1}, {"a\\x00": 1}),
        (Decimal("1.10"), "1.10"),
        (b"\x00", "b'\\x00'"),
    ],
)
def test_what_json_cannot_say_is_said_in_words(value: Any, stored: Any) -> None:
    """And what it can say stays what it is."""
    assert storable(value) == stored


@given(st.text(st.characters()))
def test_clean_text_can_be_stored_and_stays_clean(text: str) -> None:
    """Cleaning twice is cleaning once."""
    cleaned = clean(text)

    cleaned.encode()
    assert "\x00" not in cleaned
    assert clean(cleaned) == cleaned


@given(st.text())
def test_sound_text_is_left_alone(text: str) -> None:
    """Only what a database refuses is written otherwise."""
    if "\x00" not in text:
        assert clean(text) == text
