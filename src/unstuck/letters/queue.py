"""The queue of dead letters, and publishing that says whether it worked.

A letter is on the broker, durable and confirmed, before the original is acknowledged:
no database is needed for nothing to be lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from kombu.exceptions import OperationalError

from unstuck.core.errors import BrokerUnreachable
from unstuck.letters.letter import Letter
from unstuck.letters.message import SENT, StoredMessage
from unstuck.profile import PUBLISH_SECONDS
from unstuck.rabbit import delays
from unstuck.rabbit.queues import DEAD, dead_letter_queue

NAME = DEAD
CONTENT_TYPE = "application/json"

PERSISTENT = 2
"""AMQP's delivery mode for what must survive a restart of the broker."""


def name_for(app: Any) -> str:
    """What the queue of an app's dead letters is called: one app may have its own."""
    return str(getattr(app, "dead_letters", NAME))


def bury(app: Any, letter: Letter, *, producer: Any = None) -> None:
    """Put a letter on the broker. Raises when the broker did not take it.

    With a ``producer`` whose channel carries it out later, nothing is asked of the broker.
    """
    name = name_for(app)
    _publish(
        app,
        letter.to_wire(),
        producer=producer,
        serializer="json",
        exchange="",
        routing_key=name,
        declare=[] if producer else [dead_letter_queue(name)],
        delivery_mode=PERSISTENT,
    )


def put_back(
    app: Any,
    message: StoredMessage,
    *,
    not_before: datetime | None = None,
    wait_seconds: int = 0,
    producer: Any = None,
) -> None:
    """Publish a stored message to the queue that it came from, its body untouched.

    ``not_before`` is written on it for whoever gets it; for ``wait_seconds`` it stays on
    the broker, which must have been prepared for it. Raises when the broker did not take
    it. ``producer`` as for ``bury``.
    """
    way = delays.way(message.queue, wait_seconds) if wait_seconds else None
    exchange, routing_key = way or ("", message.queue)
    # It waits anew: for a child here, and not for what it has been through.
    headers = {**message.headers, SENT: time.time() + wait_seconds}
    if not_before is not None:
        headers["eta"] = not_before.isoformat()
    _publish(
        app,
        message.body,
        producer=producer,
        content_type=message.content_type,
        content_encoding=message.content_encoding or None,
        compression=headers.pop("compression", None),
        headers=headers,
        exchange=exchange,
        routing_key=routing_key,
        **message.properties,
    )


def waiting(app: Any) -> int:
    """How many letters wait on the broker to be archived.

    Raises ``BrokerUnreachable`` when the broker cannot be asked.
    """
    with asking(app) as connection:
        dead = dead_letter_queue(name_for(app))
        declared = dead(connection.default_channel).queue_declare()
        return int(declared.message_count)


@contextmanager
def asking(app: Any) -> Iterator[Any]:
    """A connection to ask the broker by.

    Raises ``BrokerUnreachable`` when it cannot be asked.
    """
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(
                max_retries=1, interval_start=0.2, timeout=PUBLISH_SECONDS
            )
            yield connection
    except (OperationalError, OSError) as error:
        url = app.connection_for_read().as_uri()
        message = f"The broker at {url} did not answer: {error}"
        raise BrokerUnreachable(message) from error


def _publish(app: Any, body: Any, *, producer: Any, **options: Any) -> None:
    with app.producer_or_acquire(producer) as chosen:
        publish: Callable[..., Any] = chosen.publish
        publish(
            body,
            # A queue that somebody deleted is an error, not a black hole (AMQP).
            mandatory=True,
            retry=producer is None,
            retry_policy=dict(app.conf.task_publish_retry_policy),
            timeout=PUBLISH_SECONDS,
            confirm_timeout=PUBLISH_SECONDS,
            **options,
        )
