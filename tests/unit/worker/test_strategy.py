"""What is looked at before Celery gets to see a message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import InvalidTaskError
from kombu.exceptions import DecodeError

from unstuck.worker.strategy import check, was_lost


def received(payload: Any = ([], {}, {}), **headers: Any) -> Any:
    """A message of a known task."""
    return SimpleNamespace(
        headers={"id": "1", **headers}, payload=payload, delivery_info={}
    )


@pytest.mark.parametrize(
    "payload",
    [
        [[], {}, {}],
        ((), {}, None),
        [[1], {"a": 1}, {"chain": None}],
        {"args": [], "kwargs": {}},
    ],
)
def test_a_task_message_passes(payload: Any) -> None:
    """Protocol 2, and the mixture with protocol 1 that Celery reads."""
    check(received(payload))


@pytest.mark.parametrize(
    "payload",
    [
        None,
        7,
        "abc",
        [],
        [[], {}],
        {"a": 1, "b": 2, "c": 3},
        ["ab", {}, {}],
        [None, {}, {}],
        [[], [], {}],
        [[], None, {}],
        [[], {}, []],
        [[], {}, "x"],
    ],
)
def test_another_shape_is_refused(payload: Any) -> None:
    """Celery's worker would stumble over it, and stop or drop it."""
    with pytest.raises(InvalidTaskError):
        check(received(payload))


@pytest.mark.parametrize("id", [None, 7, ["1"], {}])
def test_an_id_is_a_string(id: Any) -> None:
    """It is a key of dicts everywhere."""
    with pytest.raises(InvalidTaskError, match="'id'"):
        check(received(id=id))


@pytest.mark.parametrize("limits", [60, "60", [60], [1, 2, 3], {"hard": 60}])
def test_time_limits_are_a_pair(limits: Any) -> None:
    """Celery unpacks them."""
    with pytest.raises(InvalidTaskError, match="'timelimit'"):
        check(received(timelimit=limits))


@pytest.mark.parametrize("limits", [["60", None], [60, "54"], [[], []], [{}, 1]])
def test_time_limits_are_numbers(limits: Any) -> None:
    """We multiply and compare them in main, where an error stops the consumer."""
    with pytest.raises(InvalidTaskError, match="'timelimit'"):
        check(received(timelimit=limits))


@pytest.mark.parametrize("limits", [None, [], [None, None], [60, 54], (60, None)])
def test_no_limits_or_a_pair_pass(limits: Any) -> None:
    """What Celery itself writes."""
    check(received(timelimit=limits))


def test_errors_of_decoding_keep_their_kind() -> None:
    """The consumer has a way for them."""

    class Undecodable:
        headers = {"id": "1"}

        @property
        def payload(self) -> Any:
            raise DecodeError("no")

    with pytest.raises(DecodeError):
        check(Undecodable())


@pytest.mark.parametrize("error", [RecursionError(), AttributeError(), MemoryError()])
def test_any_other_error_is_the_message_s(error: Exception) -> None:
    """A body that makes the decoder fail in its own way is an invalid message."""

    class Hostile:
        headers = {"id": "1"}

        @property
        def payload(self) -> Any:
            raise error

    with pytest.raises(InvalidTaskError, match="cannot be decoded"):
        check(Hostile())


@pytest.mark.parametrize(
    ("info", "headers", "lost"),
    [
        ({}, {}, False),
        (None, {}, False),
        ({"redelivered": False}, {}, False),
        ({"redelivered": True}, {}, True),
        ({}, {"redelivered": True}, True),
    ],
)
def test_a_redelivery_is_a_loss(info: Any, headers: dict[str, Any], lost: bool) -> None:
    """AMQP says it in the delivery, Redis in the headers."""
    message = SimpleNamespace(delivery_info=info, headers=headers)

    assert was_lost(message) is lost
