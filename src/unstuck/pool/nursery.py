"""Main's line to the supervisor, which forks the children and reaps them."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

from unstuck.pool.board import Board
from unstuck.pool.death import Death
from unstuck.pool.room import FILES_OF_A_CHILD, NO_ROOM, has_room
from unstuck.pool.wire import INT, NOT_NOW, blocking, carried, carrying

LONGEST_MESSAGE = 4096
SPACE_FOR_FILES = socket.CMSG_SPACE(2 * FILES_OF_A_CHILD * INT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """A child is there."""

    row: int
    pid: int
    end: socket.socket
    """Main's end of the line to the child."""

    other_end: socket.socket
    """The child's end, to take back what the child has not taken."""

    handle: int
    """A descriptor of the process (pidfd_open(2)): it never means another one."""

    stack_file: int
    """Where the child writes its stacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """A child is no more."""

    row: int
    job: int
    """The number of the job that it began last."""

    death: Death


@dataclass(frozen=True, slots=True)
class Unborn:
    """A child could not be forked, or there was no room for it here."""

    why: str


class Nursery:
    """Asks for children, and hears what becomes of them."""

    def __init__(self, line: socket.socket, board: Board) -> None:
        line.setblocking(False)
        self.line = line
        self.board = board
        self._owed = 0

    def ask(self, count: int) -> None:
        """Ask for more children."""
        self._owed += count
        if self._owed and say(self.line, {"fork": self._owed}):
            self._owed = 0

    def hear(self) -> list[Born | Died | Unborn]:
        """What has happened since."""
        heard: list[Born | Died | Unborn] = []
        while (message := listen(self.line)) is not None:
            wire, files = message
            heard.append(_event(wire, files))
        return heard


def say(
    line: socket.socket, message: dict[str, Any], files: tuple[int, ...] = ()
) -> bool:
    """Send a message along the line; ``False`` if it does not fit now."""
    data = json.dumps(message).encode()
    try:
        line.sendmsg([data], carrying(files) if files else [])
    except OSError as error:
        if error.errno in NOT_NOW:
            return False
        raise
    return True


def listen(line: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message on the line and the files that came along; ``None``: none yet.

    Raises ``EOFError`` when the other side is gone.
    """
    try:
        data, ancillary, _, _ = line.recvmsg(
            LONGEST_MESSAGE, SPACE_FOR_FILES, socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        return None
    except ConnectionError as error:
        raise EOFError from error
    if not data:
        raise EOFError
    return json.loads(data), carried(ancillary)


def _event(wire: dict[str, Any], files: list[int]) -> Born | Died | Unborn:
    if "unborn" in wire:
        return Unborn(wire["unborn"])
    if "born" in wire:
        return _born(wire, files)
    death = Death.from_wire(wire["died"])
    return Died(row=wire["row"], job=wire["job"], death=death)


def _born(wire: dict[str, Any], files: list[int]) -> Born | Unborn:
    if not has_room(files):
        # The child finds its line closed, and exits.
        for file in files:
            os.close(file)
        return Unborn(NO_ROOM)
    end, other_end, handle, stack_file = files
    return Born(
        row=wire["row"],
        pid=wire["born"],
        end=blocking(socket.socket(fileno=end)),
        other_end=blocking(socket.socket(fileno=other_end)),
        handle=handle,
        stack_file=stack_file,
    )
