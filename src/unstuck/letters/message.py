"""A message as it was on the broker, apart from any connection."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import kombu

KEPT_PROPERTIES = (
    "correlation_id",
    "reply_to",
    "priority",
    "delivery_mode",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
)
"""The message properties that belong to the message and not to one hand-over of it."""

SENT = "unstuck_sent"
"""The header in which we write when a message was sent, in seconds since the epoch."""

COUNT = "x-delivery-count"
"""The header in which a broker tells how often a message was lost before."""

DEATHS = "x-death"
"""The header in which RabbitMQ tells of each queue that a message has left by the back
door: dropped, or passed on when its delay was over."""

DEATH_HEADERS = frozenset(
    {DEATHS}
    | {
        f"x-{which}-death-{what}"
        for which in ("first", "last")
        for what in ("exchange", "queue", "reason")
    }
)

HANDOVER_HEADERS = frozenset({"redelivered", COUNT}) | DEATH_HEADERS
"""Headers that brokers add on the way. Published along with a message, those of its
deaths would have RabbitMQ drop it as one that goes round in circles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """The body byte for byte, and all that is needed to publish it again."""

    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    queue: str = ""

    @classmethod
    def of(cls, message: kombu.Message, queue: str) -> StoredMessage:
        """The message that a consumer was handed from ``queue``."""
        body = message.body if message.body is not None else b""
        encoding = message.content_encoding or ""
        return cls(
            body=_as_bytes(body, encoding),
            content_type=message.content_type or "application/octet-stream",
            content_encoding=encoding,
            headers={
                name: value
                for name, value in (message.headers or {}).items()
                if name not in HANDOVER_HEADERS
            },
            properties={
                name: message.properties[name]
                for name in KEPT_PROPERTIES
                if (message.properties or {}).get(name) is not None
            },
            queue=queue,
        )

    @classmethod
    def in_envelope(
        cls, channel: Any, content: str, queue: str
    ) -> StoredMessage | None:
        """The message that a channel of kombu has written as JSON.

        ``None`` of what is no message.
        """
        try:
            message = channel.Message(json.loads(content), channel)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return cls.of(message, queue)

    def with_headers(self, **changed: Any) -> StoredMessage:
        """The same message with some headers set anew."""
        return StoredMessage(
            body=self.body,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers={**self.headers, **changed},
            properties=self.properties,
            queue=self.queue,
        )

    def to_wire(self) -> dict[str, Any]:
        """As plain data for a letter."""
        return {
            "body": base64.b64encode(self.body).decode("ascii"),
            "content_type": self.content_type,
            "content_encoding": self.content_encoding,
            "headers": dict(self.headers),
            "properties": dict(self.properties),
            "queue": self.queue,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> StoredMessage:
        """The inverse of ``to_wire``. Fields of a newer version are left out."""
        if not isinstance(wire, Mapping):
            raise TypeError(f"A message is a JSON object, not {wire!r:.100}")
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {name: value for name, value in wire.items() if name in known}
        return cls(**{**fields, "body": base64.b64decode(wire["body"])})


def _as_bytes(body: Any, encoding: str) -> bytes:
    if isinstance(body, str):
        try:
            return body.encode(encoding or "utf-8")
        except (LookupError, UnicodeEncodeError):
            return body.encode("utf-8", "surrogatepass")
    return bytes(body)
