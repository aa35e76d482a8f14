"""Children that cannot be forked."""

from __future__ import annotations

import os
import socket

import pytest

from tests.processes import room_for_files
from unstuck.pool import wire
from unstuck.pool.board import Board
from unstuck.worker import processes
from unstuck.worker.children import Children

NEEDED = 4
"""The two ends of its line, the file for its stacks and its handle."""


def leave_when_alone(line: socket.socket, row: int, stack_file: int) -> int:
    """A child's whole life."""
    try:
        wire.receive(line)
    except wire.GoneError:
        return 7
    return 0


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_fork_that_fails_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there may be no more processes; the supervisor tries it again and again."""

    def fail(work: object) -> int:
        raise BlockingIOError

    children = Children(Board(), leave_when_alone)
    before = open_files()
    monkeypatch.setattr(processes, "fork", fail)

    children._try_to_fork()

    assert open_files() == before
    assert children.count == 0


@pytest.mark.parametrize("room", range(NEEDED))
def test_too_few_descriptors_leave_no_file_open(room: int) -> None:
    """A child that was forked and cannot be handed over exits by itself."""
    children = Children(Board(), leave_when_alone)
    before = open_files()

    with room_for_files(room):
        children._try_to_fork()

    assert open_files() == before
    assert children.count == (room == NEEDED - 1)
    for pid in list(children._alive):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == 7
        children.reap(pid, in_order=True)
