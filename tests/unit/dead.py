"""Dead letters for tests, made the way the recorder makes them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import kombu
from celery import _state
from kombu.transport import memory

from unstuck import Celery
from unstuck.core.verdict import Reason
from unstuck.letters.letter import Letter
from unstuck.letters.message import StoredMessage
from unstuck.models import DeadLetter
from unstuck.recorder import archive

BURIED_AT = datetime(2026, 5, 31, 12, 0, tzinfo=UTC)
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/billing.py", line 7, in charge
    raise ValueError("no")
ValueError: no
"""


def charge(order: int, card_token: str = "") -> None:
    """The task of the letters."""


@contextmanager
def celery_app(**settings: Any) -> Iterator[Celery]:
    """An app of ours in use, on a broker in this process that is empty."""
    before = _state._tls.current_app
    app = Celery("shop", broker="memory://", set_as_current=True)
    app.conf.update(settings)
    app.task(name="shop.charge", shared=False)(charge)
    app.finalize()
    _forget_messages()
    try:
        yield app
    finally:
        app.close()
        _forget_messages()
        _state._set_current_app(before)


def buried(
    app: Celery,
    *,
    task_id: str | None = None,
    task: str = "shop.charge",
    args: Sequence[Any] = (42,),
    kwargs: Mapping[str, Any] | None = None,
    body: bytes | None = None,
    **facts: Any,
) -> Letter:
    """A letter as a worker buries it."""
    task_id = task_id or str(uuid.uuid4())
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    default = json.dumps([list(args), dict(kwargs or {}), embed]).encode()
    message = StoredMessage(
        body=default if body is None else body,
        headers={"id": task_id, "task": task, "root_id": task_id, "retries": 3},
        properties={"correlation_id": task_id},
        queue="work",
    )
    defaults: dict[str, Any] = {
        "reason": Reason.FAILED,
        "buried_at": BURIED_AT,
        "exception_type": "ValueError",
        "exception_message": "no",
        "traceback": TRACEBACK,
        "node": "worker@host",
    }
    return Letter(
        message=message, task_id=task_id, task_name=task, **{**defaults, **facts}
    )


def archived(app: Celery, **facts: Any) -> DeadLetter:
    """A letter that the recorder has archived."""
    letter = buried(app, **facts)
    archive.store(app, [letter])
    return DeadLetter.objects.get(letter_id=letter.id)


def published(app: Celery, queue: str = "work") -> list[kombu.Message]:
    """Take what waits on a queue of the broker."""
    messages = []
    with app.connection_for_read() as connection:
        bound = kombu.Queue(queue)(connection.default_channel)
        bound.queue_declare()
        while message := bound.get(no_ack=True):
            messages.append(message)
    return messages


def _forget_messages() -> None:
    memory.Transport.global_state.clear()
    memory.Channel.queues.clear()
