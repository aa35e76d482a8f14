"""Letters of what the broker has dropped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import kombu
import pytest

from unstuck.core.verdict import Reason
from unstuck.letters.drops import is_over, letter_of_drop, was_dropped
from unstuck.letters.reader import letter_in

TIME = datetime(2026, 3, 4, 5, 6, 7)


def dropped(reason: str, body: bytes = b"[[1], {}, {}]", **headers: Any) -> Any:
    """A message as RabbitMQ hands it on."""
    way = {"queue": "celery_delayed_2", "reason": "expired", "count": 1, "time": TIME}
    death = {"queue": "media", "reason": reason, "count": 1, "time": TIME}
    return kombu.Message(
        body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={
            "id": "i",
            "task": "shop.tasks.add",
            "x-first-death-reason": "expired",
            "x-death": [death, way],
            **headers,
        },
    )


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("expired", Reason.REJECTED),
        ("maxlen", Reason.REJECTED),
        ("rejected", Reason.REJECTED),
        ("delivery_limit", Reason.POISON),
        ("of the future", Reason.REJECTED),
    ],
)
def test_the_letter_tells_the_latest_death(why: str, reason: Reason) -> None:
    """From which queue, why and when; the message without what the broker wrote on it."""
    letter = letter_of_drop(dropped(why, retries=2))

    assert (letter.reason, letter.attempts) == (reason, 3)
    assert letter.cause.startswith("dropped by the broker: ")
    assert why in letter.cause
    assert letter.buried_at == TIME.replace(tzinfo=UTC)
    assert letter.message.queue == "media"
    assert letter.message.headers == {"id": "i", "task": "shop.tasks.add", "retries": 2}


def test_read_again_it_is_the_same_letter() -> None:
    """And that of another message is another one."""
    ids = {letter_of_drop(dropped("maxlen")).id for _ in range(2)}
    other = letter_of_drop(dropped("maxlen", id="j"))

    assert len(ids) == 1
    assert other.id not in ids


@pytest.mark.parametrize(
    ("why", "expires", "over"),
    [
        ("expired", "2020-01-01T00:00:00+00:00", True),
        ("expired", "2020-01-01T00:00:00", True),
        ("expired", "9999-01-01T00:00:00+00:00", False),
        ("expired", "soon", False),
        ("expired", None, False),
        ("maxlen", "2020-01-01T00:00:00+00:00", False),
    ],
)
def test_a_call_that_wanted_to_expire_leaves_no_letter(
    why: str, expires: str | None, over: bool
) -> None:
    """As where a worker finds that it has expired."""
    message = dropped(why, expires=expires)

    assert is_over(message) is over
    assert (letter_in(message) is None) is over


@pytest.mark.parametrize("deaths", [None, [], "odd", [1], [[]], [{}]])
def test_what_is_no_death_is_none(deaths: Any) -> None:
    """Headers come from outside."""
    message = dropped("maxlen")
    message.headers["x-death"] = deaths

    assert not was_dropped(message)
    letter = letter_in(message)
    assert letter is not None
    assert letter.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("odd", [None, "x", -1, True])
def test_odd_facts_are_no_facts(odd: Any) -> None:
    """A letter comes of it whatever they are."""
    message = dropped("maxlen", retries=odd)
    message.headers["x-death"][0].update(time=odd, queue=odd)

    assert letter_of_drop(message).attempts == 1
