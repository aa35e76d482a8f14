"""One desk and one steward for each process and server, whatever connections come and go."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any
from uuid import uuid4

import redis

from unstuck.transport.desk import Desk
from unstuck.transport.steward import Steward

Office = tuple[Desk, Steward]

_offices: dict[tuple[Any, ...], Office] = {}
_lock = threading.Lock()


def office_of(channel: Any) -> Office:
    """The desk and the steward that a channel shares with others of this process."""
    client = channel.connection.client
    place = (client.hostname, client.port, client.virtual_host, str(client.alt))
    node = channel.node or ""
    # A process that was forked has nothing of what its parent has in hand.
    name = (os.getpid(), *place, channel.global_keyprefix, node)
    with _lock:
        if name not in _offices:
            _offices[name] = _open(channel, node or _new_name())
        return _offices[name]


def _open(channel: Any, node: str) -> Office:
    desk = Desk(node)
    pool = channel._get_pool()
    seconds = float(channel.lease_seconds)
    limit = pool.connection_kwargs.get("socket_timeout") or seconds
    pool.connection_kwargs["socket_timeout"] = min(limit, seconds / 2)
    steward = Steward(
        desk,
        channel.keys,
        plain_client(pool),
        lease_seconds=seconds,
        predecessors=tuple(channel.predecessors),
        steps=channel.steps,
    )
    return desk, steward


def plain_client(pool: Any) -> Any:
    """A client of redis-py that leaves what the server says as it is."""
    client = redis.Redis(connection_pool=pool)
    client.response_callbacks = {}
    return client


def _new_name() -> str:
    return f"{socket.gethostname()}/{os.getpid()}#{uuid4().hex[:8]}"
