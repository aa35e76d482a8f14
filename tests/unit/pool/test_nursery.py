"""What main is told of its children, with no descriptor left for one more."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.processes import room_for_files
from unstuck.pool import nursery, wire
from unstuck.pool.board import Board
from unstuck.pool.nursery import Born, Nursery, Unborn
from unstuck.pool.room import FILES_OF_A_CHILD, KEPT_FREE

ENOUGH = FILES_OF_A_CHILD + KEPT_FREE


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's end and main's."""
    ends = wire.pair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def tell_of_a_child(supervisors: socket.socket) -> socket.socket:
    """Say that one is born; the child's end of its line."""
    mains, childs = wire.pair()
    others = [os.dup(0), os.dup(0)]
    files = (mains.fileno(), childs.fileno(), *others)
    assert nursery.say(supervisors, {"born": 1, "row": 10}, files)
    for file in others:
        os.close(file)
    mains.close()
    return childs


@pytest.mark.parametrize("number", [*range(FILES_OF_A_CHILD + 1), ENOUGH - 1])
def test_a_child_without_room_is_let_go(
    line: tuple[socket.socket, socket.socket], number: int
) -> None:
    """Where too few descriptors are free for it, or would be left for all else."""
    supervisors, mains = line
    childs = tell_of_a_child(supervisors)
    before = os.listdir("/proc/self/fd")

    with room_for_files(number):
        (unborn,) = Nursery(mains, Board()).hear()

    assert isinstance(unborn, Unborn)
    assert "ulimit -n" in unborn.why
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(wire.GoneError):
        wire.receive(childs)
    childs.close()


def test_a_child_with_room_is_taken_in(
    line: tuple[socket.socket, socket.socket],
) -> None:
    """As many as it needs are enough."""
    supervisors, mains = line
    childs = tell_of_a_child(supervisors)

    with room_for_files(ENOUGH):
        (born,) = Nursery(mains, Board()).hear()

    assert isinstance(born, Born)
    assert (born.pid, born.row) == (1, 10)
    for end in (childs, born.end, born.other_end):
        end.close()
    os.close(born.handle)
    os.close(born.stack_file)


FILLING = """
import os, resource
from unstuck.pool import nursery, wire

if os.getuid() == 0:
    os.setuid(65534)  # Whoever may do all is not held to it.
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
supervisors, mains = wire.pair()
supervisors.setblocking(False)
said = 0
while nursery.say(supervisors, {"born": 1, "row": 10}, (0, 0, 0, 0)):
    said += 1
assert said > 10
nursery.listen(mains)
assert nursery.say(supervisors, {"born": 1, "row": 10}, (0, 0, 0, 0))
"""


def test_more_files_than_may_be_on_their_way_are_sent_later() -> None:
    """As many as a process may open: hundreds of children at once are more."""
    done = subprocess.run(
        [sys.executable, "-c", FILLING], check=False, capture_output=True, text=True
    )

    assert done.stderr == ""
    assert done.returncode == 0
