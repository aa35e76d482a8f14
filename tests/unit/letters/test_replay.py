"""Putting the message of a dead letter back, read from a broker in memory."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import celery
import pytest

from tests.unit.worker.projects import empty, project, take
from unstuck import Celery
from unstuck.core.errors import ReplayError
from unstuck.letters import replay as replaying
from unstuck.letters.message import StoredMessage
from unstuck.letters.replay import arguments_of

HEADERS = {
    "lang": "py",
    "task": "shop.send",
    "id": "old",
    "root_id": "old",
    "parent_id": "parent",
    "group": "g",
    "retries": 3,
    "eta": "2020-01-01T00:00:00+00:00",
    "expires": "2020-01-01T00:00:01+00:00",
    "timelimit": [60, 54],
    "origin": "gen1@web",
    "unstuck": {"strikes": [1.0, 2.0], "unknown_since": 3.0},
    "x-tenant": "acme",
}
# Spaces, order and escapes as no serializer of ours would write them.
BODY = b'[ [1,  "\\u00e9"], {"b":2, "a":1},{"callbacks":null, "chain":null} ]'


@pytest.fixture
def app() -> Iterator[Celery]:
    """A project with the task `shop.send`."""
    app = project()

    @app.task(name="shop.send", shared=False)
    def send(to: int, text: str = "", *, a: int = 0, b: int = 0) -> None: ...

    empty(app, "celery", "slow")
    yield app
    empty(app, "celery", "slow")


def stored(**changes: Any) -> StoredMessage:
    """The message of a letter."""
    known = {
        "body": BODY,
        "headers": HEADERS,
        "properties": {"correlation_id": "old", "reply_to": "me", "priority": 5},
        "queue": "celery",
    }
    return StoredMessage(**{**known, **changes})


def replay(app: Celery, message: StoredMessage, **edits: Any) -> str:
    """Replay it; its new id."""
    task_id = str(uuid.uuid4())
    replaying.replay(app, message, task_id=task_id, **edits)
    return task_id


# As it was.


def test_a_replay_is_a_task_of_its_own(app: Celery) -> None:
    """A new id, also where the old one stood for the whole."""
    task_id = replay(app, stored())

    message = take(app)
    assert message.headers["id"] == task_id
    assert message.headers["root_id"] == task_id
    assert message.properties["correlation_id"] == task_id


def test_a_replay_names_what_it_replays(app: Celery) -> None:
    """The link back."""
    replay(app, stored())

    assert take(app).headers["unstuck"] == {"replay_of": "old"}


def test_a_replay_within_a_workflow_keeps_its_root(app: Celery) -> None:
    """Only a task that was its own root becomes its own root."""
    replay(app, stored(headers={**HEADERS, "root_id": "root"}))

    assert take(app).headers["root_id"] == "root"


def test_a_replay_starts_afresh(app: Celery) -> None:
    """No ETA, no expiry, no strikes, no retries of the past."""
    replay(app, stored())

    headers = take(app).headers
    assert not headers.get("eta")
    assert not headers.get("expires")
    assert "strikes" not in headers["unstuck"]
    assert headers["retries"] == 0


def test_a_replay_keeps_all_else(app: Celery) -> None:
    """Every other header, the properties, and the body byte for byte."""
    replay(app, stored())

    message = take(app)
    for name in ("lang", "task", "parent_id", "group", "timelimit", "x-tenant"):
        assert message.headers[name] == HEADERS[name]
    assert message.properties["reply_to"] == "me"
    assert message.properties["priority"] == 5
    assert message.body == BODY
    assert (message.content_type, message.content_encoding) == (
        "application/json",
        "utf-8",
    )


@pytest.mark.parametrize("compression", ["zlib", "bzip2"])
def test_a_compressed_message_comes_back_as_it_was(
    app: Celery, compression: str
) -> None:
    """The stored body is the plain one; on the broker it is compressed again."""
    send = app.tasks["shop.send"]
    send.apply_async((1, "x" * 999), compression=compression)
    original = take(app)

    replay(app, StoredMessage.of(original, "celery"))

    again = take(app)
    assert again.body == original.body
    assert again.payload[0] == [1, "x" * 999]


def test_a_replay_goes_where_the_message_came_from(app: Celery) -> None:
    """By the name of the queue, whatever the routes say today."""
    replay(app, stored(queue="slow"))

    assert take(app, "slow").headers["task"] == "shop.send"


def test_a_body_in_any_format_is_replayed(app: Celery) -> None:
    """Even one that this process could not read."""
    replay(app, stored(body=b"\x80\x04\xff", content_type="application/x-python"))

    message = take(app)
    assert message.body == b"\x80\x04\xff"
    assert message.content_type == "application/x-python"


def test_a_real_message_can_be_replayed(app: Celery) -> None:
    """What Celery published, as a worker received it."""
    sent = app.tasks["shop.send"].apply_async((1,), {"a": 2}, countdown=99, expires=100)
    original = take(app)

    task_id = replay(app, StoredMessage.of(original, "celery"))

    message = take(app)
    assert original.headers["id"] == sent.id
    assert message.headers["id"] == message.headers["root_id"] == task_id
    assert message.body == original.body
    assert not message.headers.get("eta")


@pytest.mark.parametrize(
    "changes", [{"headers": {}}, {"queue": ""}, {"headers": {"id": "1"}}]
)
def test_what_has_no_place_to_go_is_not_replayed(
    app: Celery, changes: dict[str, Any]
) -> None:
    """An error that says so, and nothing on the broker."""
    with pytest.raises(ReplayError, match="no task or no queue"):
        replay(app, stored(**changes))


# With other arguments.


def test_arguments_can_be_edited(app: Celery) -> None:
    """Both kinds; what Celery wrote beside them stays."""
    replay(app, stored(), args=[7], kwargs={"text": "é"})

    body = json.loads(take(app).body)
    assert body == [[7], {"text": "é"}, {"callbacks": None, "chain": None}]


def test_one_kind_of_arguments_can_be_edited_alone(app: Celery) -> None:
    """The other stays as it was."""
    replay(app, stored(), args=[7, "x"])
    replay(app, stored(), kwargs={"b": 9})

    first, second = json.loads(take(app).body), json.loads(take(app).body)
    assert first[:2] == [[7, "x"], {"b": 2, "a": 1}]
    assert second[:2] == [[1, "é"], {"b": 9}]


@pytest.mark.parametrize(
    "edited",
    [
        {"args": []},
        {"args": [1, 2, 3]},
        {"kwargs": {"c": 1}},
        {"args": [1, "x"], "kwargs": {"text": "y"}},
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    app: Celery, edited: dict[str, Any]
) -> None:
    """Before anything is published: it would only die again."""
    with pytest.raises(ReplayError, match=r"do not fit shop\.send"):
        replay(app, stored(), **edited)


def test_arguments_of_a_task_that_is_not_known_here_are_not_edited(
    app: Celery,
) -> None:
    """Nobody could check them; unedited it may go."""
    message = stored(headers={**HEADERS, "task": "shop.gone"})

    with pytest.raises(ReplayError, match="does not know the task"):
        replay(app, message, args=[1])
    replay(app, message)

    assert take(app).headers["task"] == "shop.gone"


def test_arguments_of_a_class_based_task_are_checked_too(app: Celery) -> None:
    """Celery gives such a task no `__header__`; its `run` has a signature."""

    class Send(celery.Task):
        name = "shop.class_based"

        def run(self, to: int) -> None: ...

    app.register_task(Send())
    message = stored(
        headers={**HEADERS, "task": "shop.class_based"}, body=b"[[1], {}, {}]"
    )

    with pytest.raises(ReplayError, match="do not fit"):
        replay(app, message, args=[1, 2])
    replay(app, message, args=[2])

    assert json.loads(take(app).body)[0] == [2]


def test_a_bound_task_does_not_count_itself(app: Celery) -> None:
    """`self` is no argument of the message."""

    @app.task(name="shop.bound", bind=True, shared=False)
    def bound(self: Any, to: int) -> None: ...

    message = stored(headers={**HEADERS, "task": "shop.bound"})

    replay(app, message, args=[1], kwargs={})

    assert json.loads(take(app).body)[0] == [1]


@pytest.mark.parametrize("body", [b"\xff", b"{", b"[1]", b"null", b"7"])
def test_a_body_that_cannot_be_read_is_not_edited(app: Celery, body: bytes) -> None:
    """There is nothing to put new arguments into."""
    with pytest.raises(ReplayError, match="cannot be read"):
        replay(app, stored(body=body), args=[1])


def test_only_json_is_edited(app: Celery) -> None:
    """We write no pickle."""
    with pytest.raises(ReplayError, match="application/x-python-serialize"):
        replay(app, stored(content_type="application/x-python-serialize"), args=[1])


# Looking into a message.


def test_the_arguments_of_a_message_can_be_looked_at(app: Celery) -> None:
    """As its task would get them."""
    assert arguments_of(app, stored()) == ([1, "é"], {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff", "application/json"),
        (b"{", "application/json"),
        (b"null", "application/json"),
        (b"[1, 2]", "application/json"),
        (b"[[], 3, {}]", "application/json"),
        (b"[3, {}, {}]", "application/json"),
        (b"\x80\x04N.", "application/x-python-serialize"),
        (b"\x01\x02\x03", "application/octet-stream"),
        (b"[[], {}, {}]", "no/such-type"),
    ],
)
def test_what_cannot_be_read_has_no_arguments(
    app: Celery, body: bytes, content_type: str
) -> None:
    """None, never an error; and never a pickle that the project does not accept."""
    assert arguments_of(app, stored(body=body, content_type=content_type)) is None
