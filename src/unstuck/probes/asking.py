"""Asking a worker: one question, one connection, and no library for it.

``http.client`` alone would cost as much as all the rest of a probe.
"""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

SECONDS = 3.0
MOST_BYTES = 256 * 1024


class NoAnswer(Exception):
    """Nobody said anything that could be understood."""


class Reply(NamedTuple):
    """What a worker said."""

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return self.status == 200


def ask(connection: socket.socket, probe: str) -> Reply:
    """Ask by a connection that has a timeout; it is closed afterwards.

    Raises ``NoAnswer``.
    """
    try:
        with connection:
            request = f"GET /{probe} HTTP/1.1\r\nHost: unstuck\r\n\r\n"
            connection.sendall(request.encode())
            return _read(_receive(connection))
    except TimeoutError as error:
        raise NoAnswer("it accepts connections and does not answer") from error
    except OSError as error:
        raise NoAnswer(f"the connection broke: {error.strerror or error}") from error


def connect(host: str, port: int) -> socket.socket:
    """A connection by TCP. Raises ``OSError``."""
    return socket.create_connection((host, port), timeout=SECONDS)


def _receive(connection: socket.socket) -> bytes:
    received = b""
    while len(received) < MOST_BYTES and (part := connection.recv(65_536)):
        received += part
    return received


def _read(answer: bytes) -> Reply:
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        status = int(head.split(b" ", 2)[1])
        found = json.loads(body)
    except (IndexError, ValueError) as error:
        raise NoAnswer("what answers there is not a worker of unstuck") from error
    if not head.startswith(b"HTTP/") or not isinstance(found, dict):
        raise NoAnswer("what answers there is not a worker of unstuck")
    return Reply(status, found)
