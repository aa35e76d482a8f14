"""The probes process: reads the board and answers, whatever becomes of all others.

No broker, no database, no project code: there is nothing that it could hang in.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from unstuck.fields import Fields
from unstuck.metrics import text
from unstuck.pool import prctl
from unstuck.pool.board import PROBES, Board
from unstuck.probes import metrics, runtime
from unstuck.probes.judge import Probe, judge
from unstuck.probes.runtime import Place, RuntimeDirError
from unstuck.probes.server import Page, Routes, Server
from unstuck.probes.snapshot import About, take

NAME = "unstuck-probes"
TURN_SECONDS = 0.5
TRY_AGAIN_SECONDS = 10.0
"""After an address was taken by somebody else: perhaps a worker that is about to end."""

logger = logging.getLogger(__name__)


def run(board: Board, about: About, place: Place, address: str | None) -> None:
    """Serve probes until SIGTERM: the whole life of a probes process."""
    signal.signal(signal.SIGTERM, _end)
    prctl.call_us(NAME)
    server = Server(routes(board, about))
    outlets = [_Outlet("its runtime directory", partial(_open_socket, place))]
    if address:
        outlets.append(_Outlet(f"PROBE_ADDRESS {address}", partial(_open, address)))
    try:
        while True:
            for outlet in outlets:
                outlet.open_if_due(server)
            server.turn(TURN_SECONDS)
            board.row(PROBES).beat()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        runtime.forget(place)
        server.close()


def _end(*_: object) -> None:
    raise SystemExit(0)


def routes(board: Board, about: About) -> Routes:
    """What is served."""
    probes = {f"/{probe}": partial(_answer, probe, board, about) for probe in Probe}
    return {**probes, "/metrics": partial(_metrics, board, about)}


def _answer(probe: Probe, board: Board, about: About) -> Page:
    answer = judge(probe, take(board), about)
    status = HTTPStatus.OK if answer.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, json.dumps(answer.to_wire()).encode() + b"\n")


def _metrics(board: Board, about: About) -> Page:
    parts = text.in_parts(metrics.readings(board, about))
    return Page(HTTPStatus.OK, map(str.encode, parts), text.CONTENT_TYPE)


class _Outlet:
    """One place to serve at, tried again while it cannot be had."""

    def __init__(self, name: str, open_: Callable[[], socket.socket]) -> None:
        self._name = name
        self._open = open_
        self._is_open = False
        self._due_at = 0.0

    def open_if_due(self, server: Server) -> None:
        """Open it, unless it is or was just tried."""
        if self._is_open or time.monotonic() < self._due_at:
            return
        try:
            server.serve(self._open())
            self._is_open = True
        except (OSError, RuntimeDirError) as error:
            if not self._due_at:
                logger.warning(
                    "Probes are not served, which is tried again: %(fields)s",
                    Fields(place=self._name, every=TRY_AGAIN_SECONDS, error=error),
                )
            self._due_at = time.monotonic() + TRY_AGAIN_SECONDS


def _open_socket(place: Place) -> socket.socket:
    directory = place.path.parent
    runtime.prepare(directory)
    runtime.sweep(directory)
    return runtime.listen(place)


def _open(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, int(port)))
        server.listen(socket.SOMAXCONN)
    except BaseException:
        server.close()
        raise
    return server
