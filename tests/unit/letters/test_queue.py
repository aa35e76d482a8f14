"""The queue of dead letters and its reader, on a broker in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import kombu
import pytest

from tests.unit.worker.projects import empty, project, take
from unstuck import Celery
from unstuck.core.verdict import Reason
from unstuck.letters import queue
from unstuck.letters.letter import Letter
from unstuck.letters.message import StoredMessage
from unstuck.letters.reader import letter_in, letter_reader

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LETTER = Letter(
    message=StoredMessage(body=b"\x00\xff", headers={"id": "1"}, queue="celery"),
    task_id="1",
    task_name="shop.send",
    reason=Reason.POISON,
    buried_at=NOW,
)


@pytest.fixture
def app() -> Iterator[Celery]:
    """A project whose queue of dead letters is empty."""
    app = project()
    queue.waiting(app)  # declares it
    empty(app, "celery", queue.NAME)
    yield app
    empty(app, "celery", queue.NAME)


def received(body: bytes) -> kombu.Message:
    """What was found in the queue of dead letters."""
    return kombu.Message(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={"routing_key": queue.NAME},
    )


def test_the_queue_survives_its_broker() -> None:
    """Durable, with messages that are written to disk."""
    dead = queue.dead_letter_queue()

    assert (dead.name, dead.routing_key, dead.durable) == (queue.NAME, queue.NAME, True)
    assert not dead.auto_delete


def test_a_buried_letter_is_read_as_it_was(app: Celery) -> None:
    """Over the broker and back."""
    queue.bury(app, LETTER)

    with letter_reader(app) as reader:
        (found,) = reader.read(10, wait=1)
        letter = found.letter()
        found.ack()

    assert letter == LETTER
    assert queue.waiting(app) == 0


def test_an_app_may_have_a_queue_of_its_own(app: Celery) -> None:
    """Its letters go there and come from there, and the others see none of it."""
    apart = project()
    apart.dead_letters = "apart"
    queue.bury(apart, LETTER)

    assert (queue.waiting(app), queue.waiting(apart)) == (0, 1)
    with letter_reader(apart) as reader:
        (found,) = reader.read(10, wait=1)
        found.ack()
    assert queue.waiting(apart) == 0


def test_what_waits_can_be_counted(app: Celery) -> None:
    """How many letters are on the broker and not yet archived."""
    assert queue.waiting(app) == 0

    queue.bury(app, LETTER)
    queue.bury(app, LETTER)

    assert queue.waiting(app) == 2


def test_no_more_is_read_than_was_asked_for(app: Celery) -> None:
    """A batch has an end."""
    for _ in range(3):
        queue.bury(app, LETTER)

    with letter_reader(app) as reader:
        batches = [len(reader.read(2, wait=0.01)) for _ in range(3)]

    assert batches == [2, 1, 0]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"{",
        b"{}",
        b'{"message": 1, "reason": "failed", "buried_at": "x"}',
        json.dumps({**LETTER.to_wire(), "reason": "bad mood"}).encode(),
        json.dumps({**LETTER.to_wire(), "buried_at": 7}).encode(),
    ],
)
def test_what_is_no_letter_is_buried_as_one(body: bytes) -> None:
    """Somebody wrote to our queue: their bytes are kept, and the reader goes on."""
    letter = letter_in(received(body))

    assert letter.reason is Reason.UNDECODABLE
    assert letter.message.body == body
    assert letter.message.queue == queue.NAME
    assert letter.id == letter_in(received(body)).id, "read twice, archived once"
    assert letter.exception_message.startswith("Not a letter of unstuck")


@pytest.mark.parametrize("body", [b"null", b"7", b'"hello"', b"[1, 2]"])
def test_json_that_is_no_object_is_buried_as_a_letter_too(body: bytes) -> None:
    """Else one such message would keep every letter behind it from the archive."""
    letter = letter_in(received(body))

    assert letter.reason is Reason.UNDECODABLE
    assert letter.message.body == body


# Putting back.


def test_a_message_is_put_back_with_its_body_untouched(app: Celery) -> None:
    """Into the queue that it came from, headers and properties as they were."""
    body = b'[ [1],{"x" : 2}, {}]'
    message = StoredMessage(
        body=body,
        headers={"id": "1", "task": "shop.send", "unstuck": {"strikes": [1.5]}},
        properties={"correlation_id": "1", "priority": 3},
        queue="celery",
    )

    queue.put_back(app, message)

    back = take(app)
    assert StoredMessage.of(back, "celery").body == body
    assert back.headers["unstuck"] == {"strikes": [1.5]}
    assert back.properties["correlation_id"] == "1"
    assert back.properties["priority"] == 3
    assert "eta" not in back.headers


def test_a_message_is_put_back_for_later(app: Celery) -> None:
    """Celery's own header for an instant; the original stays a value."""
    message = StoredMessage(body=b"[]", headers={"id": "1"}, queue="celery")

    queue.put_back(app, message, not_before=NOW)

    assert take(app).headers["eta"] == NOW.isoformat()
    assert message.headers == {"id": "1"}


@pytest.mark.parametrize("publish", [queue.bury, queue.put_back])
def test_a_broker_that_takes_nothing_is_an_error(
    app: Celery, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silence: the original stays unacknowledged then."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(kombu.Producer, "publish", refuse)

    with pytest.raises(ConnectionError):
        publish(app, LETTER if publish is queue.bury else LETTER.message)
