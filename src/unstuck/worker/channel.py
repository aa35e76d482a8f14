"""Facts from the processes of a node to its recorder, through the kernel."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from unstuck.core.facts import Fact, from_wire
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

BUFFER_BYTES = 4 * 2**20
SMALLEST_BUFFER_BYTES = 2**16

DATAGRAM_BYTES = 100_000
TEXT_LENGTHS = (90_000, 30_000, 10_000, 3_000, 1_000, 300)
"""What each text is cut to, one after the other, until the datagram fits."""

CUT = "\n… cut\n"


class FactChannel:
    """Made before forking; any process sends, the recorder receives, nobody waits.

    What was sent stays in the kernel while there is no recorder, as long as one process
    (the supervisor) holds the channel. What does not fit is dropped and counted.
    """

    def __init__(self) -> None:
        # As a pair of datagram sockets each fact is taken whole, whoever sends.
        self._receiving, self._sending = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_DGRAM
        )
        for end in (self._receiving, self._sending):
            end.setblocking(False)
        _widen(self._sending, socket.SO_SNDBUF)
        _widen(self._receiving, socket.SO_RCVBUF)
        self._pid = os.getpid()
        self._untold = 0
        self._told = 0
        self.dropped = 0
        """How many facts of this process did not fit."""

    def fileno(self) -> int:
        """The receiving end, to wait for."""
        return self._receiving.fileno()

    def close(self) -> None:
        """Give up both ends."""
        self._receiving.close()
        self._sending.close()

    def send(self, fact: Fact) -> bool:
        """Send one fact; False when it was dropped. Never blocks, never raises.

        Texts that are too long for a datagram are cut in their middle.
        """
        self._count_for_this_process()
        try:
            self._sending.send(_datagram(fact, self._untold))
        except OSError:
            return self._drop()
        except Exception:
            logger.exception("A fact that cannot be sent")
            return self._drop()
        self._untold = 0
        return True

    def receive(self, limit: int = 500) -> list[Fact]:
        """The facts that are there, oldest first, up to a number. Never blocks."""
        facts = []
        for _ in range(limit):
            try:
                data = self._receiving.recv(DATAGRAM_BYTES)
            except OSError:
                break
            try:
                wire = json.loads(data)
                self._told += wire["dropped"]
                facts.append(from_wire(wire["fact"]))
            except (ValueError, TypeError, KeyError):
                logger.exception("Not a fact: %(fields)s", Fields(data=data[:200]))
                self._told += 1
        return facts

    def take_dropped(self) -> int:
        """How many facts were dropped before those received; each is told once."""
        told, self._told = self._told, 0
        return told

    def _drop(self) -> bool:
        self.dropped += 1
        self._untold += 1
        return False

    def _count_for_this_process(self) -> None:
        # What the forking process dropped it tells itself.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self.dropped = self._untold = 0


def _datagram(fact: Fact, dropped: int) -> bytes:
    wire = fact.to_wire()
    for longest in TEXT_LENGTHS:
        envelope = {"dropped": dropped, "fact": _cut(wire, longest)}
        data = json.dumps(envelope, default=_named).encode()
        if len(data) <= DATAGRAM_BYTES:
            return data
    raise ValueError(f"A {wire['kind']} of {len(data)} bytes, all texts cut")


def _cut(value: Any, longest: int) -> Any:
    """``value`` with every text in it shortened to its beginning and its end."""
    match value:
        case str() if len(value) > longest:
            half = longest // 2
            # Tracebacks have their news at the end, faulthandler's stacks at the top.
            return f"{value[:half]}{CUT}{value[-half:]}"
        case Mapping():
            return {key: _cut(item, longest) for key, item in value.items()}
        case list() | tuple():
            return [_cut(item, longest) for item in value]
        case _:
            return value


def _named(value: object) -> str:
    # Not its repr, which is code of somebody else.
    return f"<{type(value).__name__}>"


def _widen(end: socket.socket, option: int) -> None:
    """Make a buffer as large as the kernel lets; Linux cuts, others refuse."""
    size = BUFFER_BYTES
    while size >= SMALLEST_BUFFER_BYTES:
        try:
            end.setsockopt(socket.SOL_SOCKET, option, size)
        except OSError:
            size //= 2
        else:
            return
