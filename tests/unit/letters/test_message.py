"""Messages apart from any connection."""

from __future__ import annotations

import base64
import json
from typing import Any

import kombu
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual import Message as VirtualMessage

from unstuck.letters.message import StoredMessage


def received(body: Any = b"[]", **facts: Any) -> kombu.Message:
    """A message as kombu hands it to a consumer."""
    known = {"content_type": "application/json", "content_encoding": "utf-8"}
    return kombu.Message(body=body, **{**known, **facts})


@given(st.binary(), st.sampled_from(["utf-8", "binary", "", "no-such-encoding"]))
def test_the_body_is_kept_byte_for_byte(body: bytes, encoding: str) -> None:
    """Whether or not it can be decoded."""
    message = received(body, content_encoding=encoding)

    stored = StoredMessage.of(message, "celery")

    assert stored.body == body
    assert StoredMessage.from_wire(stored.to_wire()) == stored


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_kind_of_bytes_is_kept(kind: type) -> None:
    """Transports differ in what they hand over."""
    assert StoredMessage.of(received(kind(b"\x00\xff")), "q").body == b"\x00\xff"


def test_text_is_kept_in_the_encoding_that_it_came_in() -> None:
    """Some transports decode what they hand over."""
    assert StoredMessage.of(received("é"), "q").body == b"\xc3\xa9"
    latin = received("é", content_encoding="latin-1")
    assert StoredMessage.of(latin, "q").body == b"\xe9"


def test_text_in_an_encoding_that_is_none_is_kept_as_utf_8() -> None:
    """`binary` is what kombu calls no encoding."""
    message = received("é", content_encoding="binary")

    assert StoredMessage.of(message, "q").body == b"\xc3\xa9"


@pytest.mark.parametrize(
    ("body", "encoding"), [("\ud800", "utf-8"), ("é", "ascii"), ("\ud800", "binary")]
)
def test_text_that_its_encoding_cannot_hold_is_kept_all_the_same(
    body: str, encoding: str
) -> None:
    """What cannot be decoded is buried with its bytes, and nothing keeps it from that.

    kombu's virtual transports (Redis) hand over such a `str` with an error inside.
    """
    message = VirtualMessage(
        {
            "body": body,
            "content-type": "application/json",
            "content-encoding": encoding,
            "properties": {"delivery_info": {}, "delivery_tag": "1"},
        },
        channel=kombu.Connection("memory://").channel(),
    )
    if encoding != "utf-8":
        message.body = body

    stored = StoredMessage.of(message, "celery")

    assert stored.body


def test_a_message_without_a_body_has_an_empty_one() -> None:
    """Nothing is nothing."""
    assert StoredMessage.of(received(None), "q").body == b""


def test_headers_of_one_hand_over_are_stripped() -> None:
    """What the broker counted would count against the message when it is put back."""
    headers = {
        "id": "1",
        "task": "shop.send",
        "redelivered": True,
        "x-delivery-count": 3,
        "x-death": [{"count": 1}],
        "x-own": "kept",
    }

    stored = StoredMessage.of(received(headers=headers), "celery")

    assert stored.headers == {"id": "1", "task": "shop.send", "x-own": "kept"}


def test_properties_of_one_hand_over_are_stripped() -> None:
    """The delivery tag belongs to a channel, the expiration to a time that is over."""
    properties = {
        "correlation_id": "1",
        "reply_to": "me",
        "priority": 0,
        "delivery_mode": 2,
        "message_id": None,
        "delivery_tag": "t",
        "delivery_info": {"exchange": ""},
        "body_encoding": "base64",
        "expiration": "1000",
    }

    stored = StoredMessage.of(received(properties=properties), "celery")

    assert stored.properties == {
        "correlation_id": "1",
        "reply_to": "me",
        "priority": 0,
        "delivery_mode": 2,
    }


def test_what_a_stranger_sent_is_stored_too() -> None:
    """No headers, no properties, no content type: still a message."""
    stranger = kombu.Message(body=b"\xff", headers=None, properties=None)

    stored = StoredMessage.of(stranger, "celery")

    assert stored == StoredMessage(
        body=b"\xff",
        content_type="application/octet-stream",
        content_encoding="",
        queue="celery",
    )


def test_headers_are_set_anew_without_touching_the_rest() -> None:
    """The original is a value: it stays as it was."""
    stored = StoredMessage(body=b"b", headers={"a": 1, "b": 2}, queue="q")

    changed = stored.with_headers(b=3, c=4)

    assert changed.headers == {"a": 1, "b": 3, "c": 4}
    assert stored.headers == {"a": 1, "b": 2}
    assert changed.to_wire() == {**stored.to_wire(), "headers": changed.headers}


def test_the_wire_is_plain_json() -> None:
    """The body travels as base64."""
    wire = json.loads(json.dumps(StoredMessage(body=b"\x00\xff").to_wire()))

    assert base64.b64decode(wire["body"]) == b"\x00\xff"
