"""How long a page waits for a database server that gives no answer at all.

Bounds that the server keeps are for one that works. A server that is stopped, or whose host
is gone without a word, keeps none: then the connection is cut from this side.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

PAGE_SECONDS, ACT_SECONDS = 12.0, 60.0
"""For all of a page: longer than its parts, or what it does, may take together."""

CONNECT_SECONDS = 5
"""What the project says wins."""


@contextmanager
def bounded(*, acts: bool = False) -> Iterator[None]:
    """Within it, connections to PostgreSQL are made and answer in time, or break."""
    mine = [one for one in connections.all() if one.vendor == "postgresql"]
    cut = threading.Timer(ACT_SECONDS if acts else PAGE_SECONDS, _cut, [mine])
    cut.daemon = True
    with ExitStack() as stack:
        for connection in mine:
            stack.enter_context(_connecting(connection))
        cut.start()
        stack.callback(cut.cancel)
        yield


@contextmanager
def _connecting(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """For this thread's connection alone: its settings are those of all threads."""
    ask = connection.get_connection_params
    connection.get_connection_params = functools.partial(_in_time, ask)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del connection.get_connection_params


def _in_time(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {"connect_timeout": CONNECT_SECONDS, **ask()}


def _cut(mine: Iterable[BaseDatabaseWrapper]) -> None:
    """End what is waited for: whoever reads from it is told that the server is gone."""
    for connection in mine:
        session = connection.connection
        # Of another descriptor, as that is closed again; it is the same connection.
        with (
            suppress(Exception),
            socket.socket(fileno=os.dup(session.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)
