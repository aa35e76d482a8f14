"""Packets are whole or not at all, whatever their size and whoever dies."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from unstuck.pool import wire
from unstuck.pool.wire import INLINE, Kind, Packet

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    pair = wire.pair()
    yield pair
    for end in pair:
        end.close()


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, 20 * 2**20])
def test_a_packet_arrives_as_it_was_sent(ends: Ends, size: int) -> None:
    """Also one that no socket would take in one piece."""
    packet = Packet(Kind.JOB, 2**40, os.urandom(size))

    assert wire.send(ends[0], packet)

    assert wire.receive(ends[1]) == packet


def test_packets_keep_their_order_and_bounds(ends: Ends) -> None:
    """However different they are."""
    packets = [Packet(Kind.DONE, n, b"x" * (n * 7000)) for n in range(10)]
    for packet in packets:
        wire.send(ends[0], packet)

    assert [wire.receive(ends[1]) for _ in packets] == packets


def test_nothing_to_read_is_none_without_waiting(ends: Ends) -> None:
    """Main never waits for a child."""
    assert wire.receive(ends[0], wait=False) is None


def test_a_full_line_takes_nothing_rather_than_half(ends: Ends) -> None:
    """And leaves no descriptor behind."""
    packet = Packet(Kind.JOB, 1, b"x" * INLINE)
    sent = 0
    while wire.send(ends[0], packet, wait=False):
        sent += 1
    before = len(os.listdir("/proc/self/fd"))

    assert not wire.send(ends[0], Packet(Kind.JOB, 2, b"y" * (INLINE + 1)), wait=False)

    assert len(os.listdir("/proc/self/fd")) == before
    assert [wire.receive(ends[1]) for _ in range(sent)] == [packet] * sent
    assert wire.receive(ends[1], wait=False) is None


def test_what_was_sent_can_be_read_after_the_sender_is_gone(ends: Ends) -> None:
    """The last words of a child that was killed."""
    packet = Packet(Kind.DONE, 1, b"z" * (INLINE + 1))
    wire.send(ends[0], packet)
    ends[0].close()

    assert wire.receive(ends[1]) == packet
    with pytest.raises(wire.GoneError):
        wire.receive(ends[1])


def test_sending_to_nobody_says_so(ends: Ends) -> None:
    """`GoneError`, not a signal."""
    ends[1].close()

    with pytest.raises(wire.GoneError):
        wire.send(ends[0], Packet(Kind.EXIT, 0, b""))


def test_each_packet_goes_to_one_reader_only(ends: Ends) -> None:
    """What main takes back at the child's end, the child does not get."""
    child = socket.socket(fileno=os.dup(ends[1].fileno()))
    for number in (1, 2):
        wire.send(ends[0], Packet(Kind.JOB, number, b""))
    first = wire.receive(child)
    back = wire.receive(ends[1], wait=False)
    left = wire.receive(child, wait=False)
    child.close()

    assert first is not None
    assert back is not None
    assert (first.number, back.number, left) == (1, 2, None)


@pytest.mark.parametrize(
    "data",
    [
        b"?",
        wire.HEADER.pack(1, 0, 3, 0, 1) + b"abc",
        wire.HEADER.pack(9, 0, 0, 0, 1),
        wire.HEADER.pack(1, 0, 4, 891568578, 1) + b"abc",
        wire.HEADER.pack(1, 1, 4, 0, 1),
    ],
    ids=["short", "checksum", "kind", "length", "no file"],
)
def test_a_damaged_packet_is_refused(ends: Ends, data: bytes) -> None:
    """Nothing of it is taken for a job or a result."""
    ends[0].send(data)

    with pytest.raises(wire.BrokenPacketError):
        wire.receive(ends[1])


def test_a_default_timeout_of_the_project_does_not_change_the_line() -> None:
    """Nor that of Celery, which sets one while a worker stops."""
    socket.setdefaulttimeout(5)
    try:
        ends = wire.pair()
    finally:
        socket.setdefaulttimeout(None)
    for end in ends:
        assert end.getblocking()
        assert end.gettimeout() is None
        end.close()
