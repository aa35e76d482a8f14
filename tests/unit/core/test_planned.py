"""What waits for its time, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from unstuck.core.delivery import Delivery
from unstuck.core.planned import Planned, Where, Why, why_of

NOW = datetime(2026, 5, 31, 12, 0, tzinfo=UTC)
SENT = Delivery(task_id="5f1c", task_name="shop.charge", queue="work")


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({}, Why.ETA),
        ({"attempt": 1}, Why.RETRY),
        ({"attempt": 1, "strikes": (NOW,)}, Why.RETRY),
        ({"strikes": (NOW,)}, Why.LOST),
        ({"unknown_since": NOW}, Why.UNKNOWN_TASK),
        ({"attempt": 1, "waits_since": NOW}, Why.LOCK),
    ],
)
def test_a_message_tells_why_it_waits(known: dict[str, Any], why: Why) -> None:
    """By what was written on it."""
    assert why_of(replace(SENT, **known)) is why


def test_the_first_run_is_number_one() -> None:
    """As people count."""
    again = replace(SENT, attempt=2)

    assert Planned.of(SENT, Where.BROKER).attempt == 1
    assert Planned.of(again, Where.NODE, due_at=NOW).attempt == 3


@pytest.mark.parametrize(
    "known", [{}, {"due_at": NOW, "arguments": ([1], {"a": 2}), "lock": "x"}]
)
def test_one_survives_the_wire(known: dict[str, Any]) -> None:
    """As nodes tell of what they hold."""
    one = Planned.of(replace(SENT, attempt=1), Where.NODE, **known)

    assert Planned.from_wire(one.to_wire()) == one


@pytest.mark.parametrize("wire", [{}, {"due_at": "x", "arguments": None}])
def test_odd_words_raise(wire: dict[str, Any]) -> None:
    """They may be of another version."""
    with pytest.raises((KeyError, ValueError)):
        Planned.from_wire(wire)
