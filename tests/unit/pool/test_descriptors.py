"""Addresses as C writes them."""

from __future__ import annotations

import socket
import struct

import pytest

from unstuck.pool.descriptors import address_of

PORT = struct.pack("!H", 5432)
INET = struct.pack("=H", socket.AF_INET) + PORT + bytes([10, 0, 0, 5])
INET6 = struct.pack("=H", socket.AF_INET6) + PORT + bytes(4) + bytes(15) + b"\x01"
UNIX = struct.pack("=H", socket.AF_UNIX)


@pytest.mark.parametrize(
    ("sockaddr", "address"),
    [
        (INET + bytes(8), "10.0.0.5:5432"),
        (INET6 + bytes(4), "[::1]:5432"),
        (UNIX + b"/run/redis.sock\0\0", "/run/redis.sock"),
        (UNIX + b"\0bus\0", "@bus"),
        (UNIX, ""),
        (INET[:7], ""),
        (struct.pack("=H", socket.AF_NETLINK) + bytes(20), ""),
        (b"", ""),
    ],
)
def test_an_address_is_written_as_people_write_it(
    sockaddr: bytes, address: str
) -> None:
    """Nothing stands for what is cut or unknown."""
    assert address_of(sockaddr) == address
