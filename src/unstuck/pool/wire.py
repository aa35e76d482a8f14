"""Packets between main and one child: whole or not at all, and shared with nobody.

A socketpair of ``SOCK_SEQPACKET`` keeps the bounds of packets (unix(7)), so a process that
is killed at any instant leaves no half of one. Main keeps a copy of the child's end as
well: what the child has not taken yet can be taken back by reading it there.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("!BBIIQ")
"""Kind, whether the payload is in a file, its length and checksum, the job's number."""

INLINE = 32 * 1024
"""A larger payload travels as a file in memory, so that no packet is ever too long."""

NOT_NOW = (
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ETOOMANYREFS,
)
"""Why a packet cannot be sent just now, to somebody who is still there."""

# As plain numbers: sums of socket's own names are worked out slowly.
NO_WAIT = int(socket.MSG_DONTWAIT)
CLOSED_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)

INT = struct.calcsize("i")
SPACE_FOR_FD = socket.CMSG_SPACE(INT)


class Kind(IntEnum):
    """What a packet says."""

    JOB = 1
    EXIT = 2
    READY = 3
    DONE = 4
    CLAIM = 5
    UNCLAIM = 6


KINDS = {int(kind): kind for kind in Kind}


class GoneError(Exception):
    """The other end is closed."""


class BrokenPacketError(Exception):
    """A packet is not what was sent."""


class Packet(NamedTuple):
    """One message, whole."""

    kind: Kind
    number: int
    payload: bytes


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection: main's and the child's."""
    mains, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return blocking(mains), blocking(childs)


def blocking(end: socket.socket) -> socket.socket:
    """An end that waits, whatever ``socket.setdefaulttimeout`` was told.

    That would make it non-blocking for all that share it, the child too.
    """
    end.settimeout(None)
    return end


def send(end: socket.socket, packet: Packet, *, wait: bool = True) -> bool:
    """Send a packet; ``False`` if it does not fit now and we shall not ``wait``.

    Raises ``GoneError`` when nobody can receive it any more.
    """
    payload = packet.payload
    in_file = len(payload) > INLINE
    head = HEADER.pack(
        packet.kind, in_file, len(payload), zlib.crc32(payload), packet.number
    )
    flags = 0 if wait else NO_WAIT
    try:
        if in_file:
            _send_with_file(end, head, payload, flags)
        else:
            end.send(head + payload, flags)
    except OSError as error:
        if error.errno in NOT_NOW:
            return False
        raise GoneError from error
    return True


def receive(end: socket.socket, *, wait: bool = True) -> Packet | None:
    """The next packet; ``None`` if there is none now and we shall not ``wait``.

    Raises ``GoneError`` when the other end is closed and nothing is left to read, and
    ``BrokenPacketError`` for what fails its checksum.
    """
    flags = CLOSED_ON_EXEC if wait else CLOSED_ON_EXEC | NO_WAIT
    try:
        data, ancillary, _, _ = end.recvmsg(HEADER.size + INLINE, SPACE_FOR_FD, flags)
    except BlockingIOError:
        return None
    except OSError as error:
        raise GoneError from error
    if not data:
        raise GoneError
    return _checked(data, carried(ancillary)[0] if ancillary else None)


def _send_with_file(
    end: socket.socket, head: bytes, payload: bytes, flags: int
) -> None:
    file = os.memfd_create("unstuck-payload", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(payload)
        end.sendmsg([head], carrying([file]), flags)
    finally:
        os.close(file)


def carrying(files: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Descriptors to send along; Python's own ``send_fds`` forgets the flags."""
    data = struct.pack(f"{len(files)}i", *files)
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)]


def carried(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came along."""
    files: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files += struct.unpack(f"{len(data) // INT}i", data)
    return files


def _checked(data: bytes, file: int | None) -> Packet:
    try:
        kind, in_file, length, checksum, number = HEADER.unpack_from(data)
        payload = data[HEADER.size :]
        if in_file and file is not None:
            with mmap.mmap(file, length, prot=mmap.PROT_READ) as content:
                payload = content[:]
        packet = Packet(KINDS[kind], number, payload)
    except (struct.error, KeyError, ValueError, OSError) as error:
        raise BrokenPacketError(repr(error)) from error
    finally:
        if file is not None:
            os.close(file)
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise BrokenPacketError(f"packet {number} of {length} bytes is damaged")
    return packet
