"""A connection between a client and a server that can be cut without anybody being told."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable

from unstuck.dev.ports import HOST


class Wire:
    """A way to a server that can be cut without anybody being told."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._wake, self._woken = socket.socketpair()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._deaf: set[socket.socket] = set()
        self._is_cut = self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Wire:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(lambda: setattr(self, "_is_over", True))
        self._thread.join()
        for each in (*self._pairs, self._listener, self._wake, self._woken):
            each.close()

    def cut(self) -> None:
        """From now on what is sent vanishes, and nobody is let in."""
        self._tell(lambda: setattr(self, "_is_cut", True))

    def mend(self) -> None:
        """New connections work; the old ones never will."""
        self._deaf = set(self._pairs)
        self._tell(lambda: setattr(self, "_is_cut", False))

    def _tell(self, change: Callable[[], object]) -> None:
        change()
        self._wake.send(b"x")

    def _run(self) -> None:
        while not self._is_over:
            heard = [each for each in self._pairs if each not in self._deaf]
            heard = [] if self._is_cut else [self._listener, *heard]
            for each in select.select([self._woken, *heard], [], [], 1)[0]:
                self._serve(each)

    def _serve(self, each: socket.socket) -> None:
        if each is self._woken:
            each.recv(4096)
        elif each is self._listener:
            here, there = each.accept()[0], socket.create_connection((HOST, self._to))
            self._pairs |= {here: there, there: here}
        elif each in self._pairs:
            self._pass_on(each, self._pairs[each])

    def _pass_on(self, each: socket.socket, to: socket.socket) -> None:
        content = b""
        with contextlib.suppress(OSError):
            content = each.recv(65536)
            to.sendall(content)
        if not content:
            for one in (each, to):
                self._pairs.pop(one, None)
                one.close()
