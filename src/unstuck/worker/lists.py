"""What kombu's own transport for Redis, which uses lists, leaves to be done."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from queue import Empty
from typing import Any

from unstuck.fields import Fields

logger = logging.getLogger(__name__)

VISIBILITY_SECONDS = 3600
"""kombu's default."""


def visibility_seconds(connection: Any) -> float:
    """For how long a message may be in hand before another worker takes it for lost."""
    options = connection.transport_options
    return float(options.get("visibility_timeout", VISIBILITY_SECONDS))


def keep_one_client(channel: Any) -> None:
    """Use one client for a channel; kombu makes two for each message."""
    create = getattr(channel, "_create_client", None)
    if create is None:
        return
    clients: dict[int, Any] = {}

    def create_once(asynchronous: bool = False) -> Any:
        if asynchronous:
            return create(asynchronous=True)
        client = clients.get(id(channel.pool))
        if client is None:
            clients.clear()
            client = clients[id(channel.pool)] = create()
        return client

    channel._create_client = create_once


def stay_in_hand(channel: Any, connection_errors: tuple[type[Exception], ...]) -> None:
    """Renew what is in hand, which kombu gives away after a while.

    It stamps a message once, when it comes, and any worker takes it for lost when
    the visibility timeout has passed: a slow task or an ETA would run twice.
    """
    if not (tags := list(channel.qos._delivered)):
        return
    try:
        with channel.conn_or_acquire() as client:
            stamps = dict.fromkeys(tags, time.time())
            client.zadd(channel.unacked_index_key, stamps, xx=True)
    except connection_errors as error:
        logger.warning(
            "What is in hand could not be renewed: %(fields)s", Fields(error=error)
        )


def hear_last_answer(channel: Any) -> None:
    """Take the message that was asked for, within a second, if one comes.

    kombu would take it when nobody listens any more, and mark it as redelivered.
    """
    take = getattr(channel, "_brpop_read", None)
    if take and channel._in_poll:
        with suppress(Empty):
            take()
