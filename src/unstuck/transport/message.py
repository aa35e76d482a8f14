"""Messages on their way through a stream."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

COUNT_HEADER = "x-delivery-count"
"""How often a message was lost with the node that had it; RabbitMQ's name for it."""

JSON = "application/json"
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined] # not in typeshed

MARK = "__type__"
"""In what kombu has written of values that JSON does not know."""


class Message(virtual.Message):
    """kombu's message; plain JSON in it is read without looking for kombu's marks."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **kwargs)
        except (ValueError, TypeError, AttributeError):
            # No body of kombu's: see message_in().
            properties = payload["properties"]
            tag, info = properties["delivery_tag"], properties["delivery_info"]
            whole = _unreadable(dumps(payload).encode(), tag, info.get("queue", ""))
            super().__init__(whole, channel=channel, **kwargs)

    def _decode(self) -> Any:
        body = self.body
        plain = (
            self.content_type == JSON
            and self.content_encoding in ("utf-8", None)
            and isinstance(body, bytes)
            and MARK.encode() not in body
            and (self.accept is None or JSON in self.accept)
        )
        if not plain:
            return super()._decode()
        try:
            return _read(body.decode())
        except ValueError:
            return super()._decode()  # Which raises as everybody expects it.


def _read(text: str) -> Any:
    """``json.loads``, without its way there for text that has nothing around it."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = None
    return value if end == len(text) else json.loads(text)


def due_milliseconds(message: Mapping[str, Any]) -> int | None:
    """When a message wants to be delivered, if that is not now.

    Celery writes it into the headers, as ISO 8601; what has no time zone or cannot be read
    is left to the worker, which knows how to.
    """
    eta = (message.get("headers") or {}).get("eta")
    if not isinstance(eta, str):
        return None
    try:
        at = datetime.fromisoformat(eta)
    except ValueError:
        return None
    if at.tzinfo is None or at <= datetime.now(UTC):
        return None
    return int(at.timestamp() * 1000)


def message_in(fields: Sequence[bytes], tag: str, queue: str) -> dict[str, Any]:
    """A message as kombu's virtual channels have it, with what is known of its way here.

    What is no such message becomes one whose body it is, for the worker to bury.
    """
    content, notes = fields[1], dict(zip(fields[2::2], fields[3::2], strict=True))
    try:
        text = bytes_to_str(content)
        message = loads(text) if MARK in text else _read(text)
        properties, headers = message["properties"], message["headers"]
        info = properties["delivery_info"]
        info["redelivered"] = False
        info["queue"] = queue
        properties["delivery_tag"] = tag
        headers.pop(COUNT_HEADER, None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return _unreadable(content, tag, queue)
    if notes:
        info["redelivered"] = True
        headers[COUNT_HEADER] = int(notes.get(b"d", 0))
    return dict(message)


def _unreadable(content: bytes, tag: str, queue: str) -> dict[str, Any]:
    return {
        "body": base64.b64encode(content).decode("ascii"),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": tag,
            "delivery_info": {"exchange": "", "routing_key": queue, "queue": queue},
        },
    }
