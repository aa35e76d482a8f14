"""A small HTTP server that waits for nobody: one thread, and bounds for each client.

Every answer is made at once from what is at hand, a long one part by part, so there is
nothing to wait for but clients; they get a few seconds each, and a place among a hundred.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

CLIENT_SECONDS = 5.0
"""How long a client may take in all."""

LINGER_SECONDS = 1.0
"""How long one that was answered may go on sending: closed at once, it would not hear."""

RESET = struct.pack("ii", 1, 0)
"""What has a connection end with a reset instead of an orderly end."""

MOST_CLIENTS = 100
MOST_BYTES = 8 * 1024
METHODS = ("GET", "HEAD")
END_OF_HEAD = b"\r\n\r\n"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What a client is given."""

    status: HTTPStatus
    body: bytes | Iterator[bytes]
    """In parts if it takes long to make: others are answered in between."""

    content_type: str = "application/json"

    def parts(self, *, with_body: bool) -> Iterator[bytes]:
        """As HTTP has it."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if isinstance(self.body, bytes):
            # Otherwise it ends with the connection.
            lines.append(f"Content-Length: {len(self.body)}")
        if self.status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append(f"Allow: {', '.join(METHODS)}")
        head = "\r\n".join(lines).encode() + END_OF_HEAD
        if not with_body:
            yield head
        elif isinstance(self.body, bytes):
            yield head + self.body
        else:
            yield head
            yield from self.body


Routes = Mapping[str, Callable[[], Page]]


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    until: float
    received: bytes = b""
    to_send: bytes = b""
    rest: Iterator[bytes] = field(default_factory=lambda: iter(()))
    answered: bool = False


class Server:
    """Serves these routes to whoever connects to its listeners."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, _Client] = {}
        self._listeners: list[socket.socket] = []

    def serve(self, listener: socket.socket) -> None:
        """Take clients from here, too."""
        listener.setblocking(False)
        self._listeners.append(listener)
        self._selector.register(listener, selectors.EVENT_READ)

    def turn(self, seconds: float) -> None:
        """Do what there is to do; wait so long for something to do."""
        for key, _ in self._selector.select(seconds):
            client = self._clients.get(key.fd)
            if client is not None:
                self._go_on_with(client)
            elif key.fileobj in self._listeners:
                self._accept(key.fileobj)
        now = time.monotonic()
        for client in [each for each in self._clients.values() if each.until <= now]:
            self._drop(client)

    def close(self) -> None:
        """Let go of all clients and listeners."""
        for client in list(self._clients.values()):
            self._drop(client)
        for listener in self._listeners:
            listener.close()
        self._selector.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # It has gone again.
            return
        connection.setblocking(False)
        if len(self._clients) >= MOST_CLIENTS:
            # The one that has had most time.
            self._drop(min(self._clients.values(), key=lambda client: client.until))
        client = _Client(connection, time.monotonic() + CLIENT_SECONDS)
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ)
        self._go_on_with(client)

    def _go_on_with(self, client: _Client) -> None:
        try:
            if client.to_send:
                self._send(client)
            else:
                self._receive(client)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(client)
        except Exception:
            # One answer that cannot be made must not cost the others theirs.
            logger.exception("An answer could not be made")
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        part = client.connection.recv(MOST_BYTES)
        if not part:
            self._drop(client)
        elif not client.answered:
            client.received += part
            answer = self._answer_to(client.received)
            if answer:
                client.rest, client.received = answer, b""
                client.to_send = next(answer)
                client.answered = True
                self._send(client)

    def _send(self, client: _Client) -> None:
        sent = client.connection.send(client.to_send)
        client.to_send = client.to_send[sent:] or next(client.rest, b"")
        if client.to_send:
            self._selector.modify(client.connection, selectors.EVENT_WRITE)
            return
        client.connection.shutdown(socket.SHUT_WR)
        self._selector.modify(client.connection, selectors.EVENT_READ)
        client.until = min(client.until, time.monotonic() + LINGER_SECONDS)

    def _drop(self, client: _Client) -> None:
        if client.to_send and client.answered:
            # An answer without a length ends with its connection: one that was cut off
            # must not look whole.
            with contextlib.suppress(OSError):
                client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._clients.pop(client.connection.fileno(), None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()

    # HTTP.

    def _answer_to(self, received: bytes) -> Iterator[bytes] | None:
        """What to send; nothing while the request is not complete."""
        head, end, _ = received.partition(END_OF_HEAD)
        if not end and len(received) < MOST_BYTES:
            return None
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        match line.split(" "):
            case [method, target, "HTTP/1.0" | "HTTP/1.1"] if end:
                page = self._page(method, target.partition("?")[0])
                return page.parts(with_body=method != "HEAD")
            case _:
                wrong = "this is no HTTP request, or its head is too long"
                return _refusal(HTTPStatus.BAD_REQUEST, wrong).parts(with_body=True)

    def _page(self, method: str, path: str) -> Page:
        if method not in METHODS:
            wrong = f"only {' and '.join(METHODS)} are answered here"
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, wrong)
        route = self._routes.get(path)
        if route is None:
            return _refusal(HTTPStatus.NOT_FOUND, f"known: {', '.join(self._routes)}")
        return route()


def _refusal(status: HTTPStatus, wrong: str) -> Page:
    return Page(status, b'{"error": "' + wrong.encode() + b'"}\n')
