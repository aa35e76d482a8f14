"""The partner at the other end of the webhooks: sometimes slow, wrong or silent.

The path says how it behaves: ``/quick``, ``/slow``, ``/error``, ``/flaky``,
``/wrong``, ``/garbage``, ``/trickle`` and ``/silent``. On ``/mixed`` the idempotency
key decides, so one event always meets the same partner.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_SECONDS = 2.0
TRICKLE_SECONDS = 0.5
MIXED = ("quick",) * 12 + ("slow",) * 3 + ("flaky",) * 3 + ("wrong", "garbage")
MAX_BODY_BYTES = 64 * 1024


class Receiver(ThreadingHTTPServer):
    """An HTTP server on the loopback that takes webhooks in its own way.

    ``stopping`` ends the handlers that would otherwise wait for ever.
    """

    daemon_threads = True

    def __init__(self, port: int, log: Callable[[str], object]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.log = log
        self.stopping = threading.Event()
        self.seen: Counter[str] = Counter()
        """How often each idempotency key came."""

    def stop(self) -> None:
        """Stop serving, from any thread but the one that serves."""
        self.stopping.set()
        self.shutdown()
        self.server_close()


def behaviour(path: str, key: str) -> str:
    """Return how the partner behaves towards the event *key* sent to *path*."""
    name = path.strip("/")
    if name != "mixed":
        return name
    return MIXED[hashlib.sha256(key.encode()).digest()[0] % len(MIXED)]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = 10

    def do_POST(self) -> None:
        key = self.headers.get("Idempotency-Key", "")
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(min(length, MAX_BODY_BYTES))
        self.server.seen[key] += 1
        kind = behaviour(self.path, key)
        self.server.log(f"{self.path} {kind} {key}")
        answer = _ANSWERS.get(kind)
        if answer is None:
            self.send_error(404)
            return
        try:
            answer(self, key)
        except OSError:
            # The sender has lost patience and hung up, which is its good right.
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: one line for each request has been said already."""

    def quick(self, key: str) -> None:
        self._answer(200, b'{"received": true}')

    def slow(self, key: str) -> None:
        self.server.stopping.wait(SLOW_SECONDS)
        self.quick(key)

    def error(self, key: str) -> None:
        self._answer(500, b'{"error": "down for maintenance"}')

    def flaky(self, key: str) -> None:
        if self.server.seen[key] < 3:
            self.error(key)
        else:
            self.quick(key)

    def wrong(self, key: str) -> None:
        self._answer(200, b"<html>Welcome to our new website!</html>")

    def garbage(self, key: str) -> None:
        self.wfile.write(b"\x16\x03\x01\x00\xa5 this is not HTTP\r\n\r\n")
        self.close_connection = True

    def trickle(self, key: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
        while not self.server.stopping.wait(TRICKLE_SECONDS):
            self.wfile.write(b".")

    def silent(self, key: str) -> None:
        while not self.server.stopping.is_set() and not self._sender_has_left():
            pass
        self.close_connection = True

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _sender_has_left(self) -> bool:
        self.connection.settimeout(1)
        try:
            return self.connection.recv(1) == b""
        except TimeoutError:
            return False


_ANSWERS: dict[str, Callable[[_Handler, str], None]] = {
    "quick": _Handler.quick,
    "slow": _Handler.slow,
    "error": _Handler.error,
    "flaky": _Handler.flaky,
    "wrong": _Handler.wrong,
    "garbage": _Handler.garbage,
    "trickle": _Handler.trickle,
    "silent": _Handler.silent,
}
