"""What is behind the descriptors of a process: peers, paths and pipes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from unstuck.pool import proc

MOST_LINES = 65536
"""Of a table of sockets, which has those of all processes of the host."""

MOST_RELATIVES = 16
MOST_DESCRIPTORS = 32

HOST_IN_SOCKADDR: dict[int, tuple[int, int]] = {
    socket.AF_INET: (4, 8),
    socket.AF_INET6: (8, 24),
}

SYN_SENT, LISTEN = "02", "0A"
UNIX_LISTENS = 0x10000

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
UDIAG_SHOW_PEER, UNIX_DIAG_PEER = 4, 2
ANY = 0xFFFFFFFF
NETLINK_HEADER = struct.Struct("=IHHII")
UNIX_REQUEST = struct.Struct("=BBHIIIII")
UNIX_ANSWER_SIZE = 16
UNIX_ATTRIBUTE = struct.Struct("=HHI")


@dataclass(frozen=True, slots=True)
class Thing:
    """What a descriptor stands for."""

    name: str
    """An address, a path, or what kind of thing it is."""

    doing: str = ""
    """What it is about in the state that it is in, when that is neither data in nor
    out: ``connect to`` or ``accept on``.
    """


def things_of(pid: int, descriptors: Iterable[int]) -> dict[int, Thing]:
    """What each of these descriptors stands for."""
    links = {fd: _link(pid, fd) for fd in descriptors}
    inodes = {inode for link in links.values() if (inode := _inode(link, "socket"))}
    sockets = _sockets(pid, inodes)
    return {
        fd: sockets.get(_inode(link, "socket")) or Thing(_name(pid, fd, link))
        for fd, link in links.items()
    }


def address_of(sockaddr: bytes) -> str:
    """The address in a ``struct sockaddr``; empty for a family that we do not know."""
    family = int.from_bytes(sockaddr[:2], "little")
    if family == socket.AF_UNIX:
        path = sockaddr[2:3].replace(b"\0", b"@") + sockaddr[3:].split(b"\0")[0]
        return path.decode("utf-8", "replace")
    start, end = HOST_IN_SOCKADDR.get(family, (0, 0))
    if not start < end <= len(sockaddr):
        return ""
    return _address(sockaddr[start:end], int.from_bytes(sockaddr[2:4], "big"))


def _link(pid: int, fd: int) -> str:
    try:
        link = os.readlink(os.fsencode(f"{proc.PROC}/{pid}/fd/{fd}"))
        return link.decode("utf-8", "replace")
    except OSError:
        return ""


def _inode(link: str, kind: str) -> str:
    match = re.fullmatch(rf"{kind}:\[(\d+)\]", link)
    return match[1] if match else ""


def _name(pid: int, fd: int, link: str) -> str:
    if _inode(link, "pipe"):
        return _pipe(pid, link)
    if _inode(link, "socket"):
        return "a socket"
    return link.removeprefix("anon_inode:").strip("[]") or f"descriptor {fd}"


def _pipe(pid: int, link: str) -> str:
    for relative in islice(_descendants(pid), MOST_RELATIVES):
        if any(_link(relative, fd) == link for fd in _descriptors_of(relative)):
            return f"a pipe of process {relative} ({proc.command_of(relative)})"
    return "a pipe"


def _descendants(pid: int) -> Iterator[int]:
    ancestors = deque([pid])
    while ancestors:
        children = proc.children_of(ancestors.popleft())
        yield from children
        ancestors += children


def _descriptors_of(pid: int) -> list[int]:
    try:
        with os.scandir(f"{proc.PROC}/{pid}/fd") as entries:
            return [int(entry.name) for entry in islice(entries, MOST_DESCRIPTORS)]
    except OSError:
        return []


# Sockets.


def _sockets(pid: int, inodes: set[str]) -> dict[str, Thing]:
    found: dict[str, Thing] = {}
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        if len(found) < len(inodes):
            found |= _internet(pid, protocol, inodes)
    if len(found) < len(inodes):
        found |= _unix(pid, inodes - found.keys())
    return found


def _internet(pid: int, protocol: str, inodes: set[str]) -> dict[str, Thing]:
    found = {}
    for row in _table(pid, protocol, columns=10):
        if row[9] in inodes:
            found[row[9]] = _internet_socket(protocol, *row[1:4])
    return found


def _internet_socket(protocol: str, local: str, remote: str, state: str) -> Thing:
    is_bound_only = remote.endswith(":0000")
    address = _address_in_table(local if is_bound_only else remote)
    if protocol.startswith("udp"):
        return Thing(f"{address} (udp)")
    return Thing(address, {SYN_SENT: "connect to", LISTEN: "accept on"}.get(state, ""))


def _address_in_table(text: str) -> str:
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    return _address(struct.pack(f"={len(words)}I", *words), int(port, 16))


def _address(packed: bytes, port: int) -> str:
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{port}"
    host = socket.inet_ntop(socket.AF_INET6, packed)
    if "." in host:  # IPv4 through a socket for both: ::ffff:10.0.0.5
        return f"{host.rpartition(':')[2]}:{port}"
    return f"[{host}]:{port}"


def _unix(pid: int, inodes: set[str]) -> dict[str, Thing]:
    """A client's end has no path of its own, so that its peer is looked up."""
    paths: dict[str, str] = {}
    listening = set()
    for row in _table(pid, "unix", columns=7):
        paths[row[6]] = " ".join(row[7:])
        if int(row[3], 16) & UNIX_LISTENS:
            listening.add(row[6])
    paths.pop("0", None)  # All those that wait to be accepted.
    return {
        inode: Thing(
            paths[inode] or paths.get(_unix_peer(inode), "") or "a unix socket",
            "accept on" if inode in listening else "",
        )
        for inode in inodes & paths.keys()
    }


def _unix_peer(inode: str) -> str:
    """The inode at the other end, which no file in /proc tells: sock_diag(7) does."""
    request = UNIX_REQUEST.pack(
        socket.AF_UNIX, 0, 0, ANY, int(inode), UDIAG_SHOW_PEER, ANY, ANY
    )
    size = NETLINK_HEADER.size + len(request)
    header = NETLINK_HEADER.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    answer = b""
    with (
        contextlib.suppress(OSError),
        socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG
        ) as kernel,
    ):
        kernel.sendto(header + request, (0, 0))
        answer = kernel.recv(4096, socket.MSG_DONTWAIT)
    return _peer_in(answer)


def _peer_in(answer: bytes) -> str:
    """The first attribute of an answer, as we asked for no other."""
    at = NETLINK_HEADER.size + UNIX_ANSWER_SIZE
    attribute = answer[at : at + UNIX_ATTRIBUTE.size]
    if len(attribute) < UNIX_ATTRIBUTE.size:
        return ""
    _, name, peer = UNIX_ATTRIBUTE.unpack(attribute)
    return str(peer) if name == UNIX_DIAG_PEER else ""


def _table(pid: int, name: str, columns: int) -> Iterator[list[str]]:
    try:
        with open(f"{proc.PROC}/{pid}/net/{name}", "rb") as file:
            lines = (line.decode("utf-8", "replace") for line in file)
            rows = (line.split() for line in islice(lines, 1, MOST_LINES))
            yield from (row for row in rows if len(row) >= columns)
    except OSError:
        return
