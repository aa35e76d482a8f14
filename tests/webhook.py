"""A server that webhooks are sent to: it takes them, refuses them, or says nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "T0/s3cret"


class Webhook:
    """What was sent, and what is answered from now on."""

    def __init__(self) -> None:
        self.answer: int | None = 200
        """A status, or ``None``: nothing until the server ends."""

        self.heard: list[dict[str, Any]] = []
        self.over = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                assert self.path == f"/{SECRET}"
                hook.heard.append(json.loads(body))
                if hook.answer is None:
                    hook.over.wait(60)
                    return
                self.send_response(hook.answer)
                if hook.answer == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"

    @property
    def texts(self) -> list[str]:
        """What was said, message by message."""
        return [message["text"] for message in self.heard]


@contextmanager
def listening() -> Iterator[Webhook]:
    """A server for a while."""
    hook = Webhook()
    thread = threading.Thread(target=hook.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hook
    finally:
        hook.over.set()
        hook.server.shutdown()
        thread.join()
        hook.server.server_close()
