"""A message as Celery would have published it, kept instead of sent.

Celery seam (tests/integration/test_outbox.py): every task is published by
``Celery.send_task``, which hands the finished message to ``producer.publish``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kombu import Exchange, Queue, serialization
from kombu.entity import binding
from kombu.exceptions import EncodeError
from kombu.utils import json

from unstuck.core.clock import system_clock
from unstuck.rabbit.queues import PatientQueue, SafeQueue

PATIENCE = ("retry", "retry_policy", "timeout", "confirm_timeout")
"""How long the caller waits: of no concern to who sends it later."""

KINDS: Mapping[str, type] = {
    "safe queue": SafeQueue,
    "patient queue": PatientQueue,
    "queue": Queue,
    "exchange": Exchange,
}
"""What must be there first, as it is told from another; the most special one first."""

ENCODING = ("serializer", "content_type", "content_encoding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One message and all that is needed to publish it."""

    message_id: uuid.UUID = field(default_factory=uuid.uuid4)
    task_id: str
    task_name: str
    body: bytes
    options: Mapping[str, Any]
    """What ``kombu.Producer.publish`` is told: headers, exchange, priority and so on."""

    declare: Sequence[Any] = ()
    """The queues and exchanges that must be there first."""

    patience: Mapping[str, Any] = field(default_factory=dict)
    ignored: bool = False
    """Whether nobody wants the result."""

    @property
    def queue(self) -> str:
        """Where it goes, for people to read."""
        names = (str(e.name) for e in self.declare if isinstance(e, Queue))
        return next(names, str(self.options.get("routing_key") or ""))

    def publish(self, producer: Any, **patience: Any) -> None:
        """Hand it to the broker. Raises what ``Producer.publish`` raises."""
        options = {**self.options, "headers": dict(self.options["headers"])}
        if options.get("expiration") is not None:
            options["expiration"] = self._seconds_left()
        producer.publish(
            self.body, declare=list(self.declare) or None, **options, **patience
        )

    def _seconds_left(self) -> float:
        expires = self.options["headers"].get("expires")
        at = datetime.fromisoformat(expires) if isinstance(expires, str) else None
        if at is None or at.tzinfo is None:
            return float(self.options["expiration"])
        return max((at - system_clock()).total_seconds(), 0.0)

    def envelope(self) -> str:
        """All but the body, as text. Raises kombu's ``EncodeError``."""
        wire = {
            "options": dict(self.options),
            "declare": [_to_wire(entity) for entity in self.declare],
        }
        try:
            return str(json.dumps(wire))
        except (TypeError, ValueError) as error:
            raise EncodeError(
                f"The headers or options of {self.task_name} cannot be kept in the "
                f"outbox, only what JSON can say: {error}"
            ) from error

    @classmethod
    def of_row(cls, row: Any) -> Publication:
        """The inverse of ``envelope``, with the other columns of its row."""
        wire = json.loads(row.envelope)
        return cls(
            message_id=row.message_id,
            task_id=row.task_id,
            task_name=row.task_name,
            body=bytes(row.body),
            options=wire["options"],
            declare=[_from_wire(entity) for entity in wire["declare"]],
        )


class Capture:
    """Stands for a producer and keeps the one message that it is given."""

    serializer = None

    def __init__(self) -> None:
        self.connection = _NoConnection()
        self._published: tuple[Any, dict[str, Any]] | None = None

    def publish(self, body: Any, **options: Any) -> None:
        """Keep it. What follows is the event that tells of it, and is not kept."""
        if self._published is None:
            self._published = (body, options)

    def publication(self, task_id: str, name: str, ignored: Any) -> Publication:
        """What was kept. Raises kombu's ``EncodeError``."""
        assert self._published is not None  # noqa: S101 - Celery has published
        body, options = self._published
        patience = {key: options.pop(key) for key in PATIENCE if key in options}
        declare = [entity for entity in options.pop("declare", None) or () if entity]
        content = _encoded(body, options)
        # Celery was told to ignore the result, so that it asks no result store.
        headers = dict(options.get("headers") or {})
        if "ignore_result" in headers:
            headers["ignore_result"] = ignored
        return Publication(
            task_id=task_id,
            task_name=name,
            body=content.pop("body"),
            options={**_plain(options), **content, "headers": headers},
            declare=declare,
            patience=patience,
            ignored=bool(ignored),
        )


class _NoConnection:
    """What Celery asks of a producer's connection."""

    recoverable_connection_errors: tuple[type[Exception], ...] = ()

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield


def _encoded(body: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    kind, encoding, data = serialization.dumps(body, options.get("serializer"))
    raw = data.encode(encoding) if isinstance(data, str) else bytes(data)
    return {"body": raw, "content_type": kind, "content_encoding": encoding}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without objects that only this process has."""
    plain = {key: value for key, value in options.items() if key not in ENCODING}
    exchange = plain.get("exchange")
    if isinstance(exchange, Exchange):
        plain["exchange"] = exchange.name
        plain["delivery_mode"] = plain.get("delivery_mode") or exchange.delivery_mode
    if isinstance(plain.get("reply_to"), Queue):
        plain["reply_to"] = plain["reply_to"].name
    return plain


def _to_wire(entity: Any) -> dict[str, Any]:
    kind = next(name for name, cls in KINDS.items() if isinstance(entity, cls))
    return {"kind": kind, **entity.as_dict(recurse=True)}


def _from_wire(wire: Mapping[str, Any]) -> Any:
    facts = {name: value for name, value in wire.items() if name != "kind"}
    if wire["kind"] == "exchange":
        return Exchange(**facts)
    bindings = [binding(**_with_exchange(one)) for one in facts.pop("bindings") or ()]
    return KINDS[wire["kind"]](**_with_exchange(facts), bindings=bindings)


def _with_exchange(facts: Mapping[str, Any]) -> dict[str, Any]:
    exchange = facts.get("exchange")
    return {**facts, "exchange": Exchange(**exchange) if exchange else None}
