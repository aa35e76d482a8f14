"""Processes see each other's rows at once, and nobody else's cells move."""

from __future__ import annotations

import os

from unstuck.pool.board import CHILDREN, FIRST_CHILD, MAIN, Board, Column


def test_a_forked_process_writes_where_its_parent_reads() -> None:
    """Its own row, and no other."""
    board = Board()
    pid = os.fork()
    if pid == 0:
        board.row(FIRST_CHILD + 3)[Column.JOB] = 2**50
        os._exit(0)
    os.waitpid(pid, 0)

    assert board.row(FIRST_CHILD + 3)[Column.JOB] == 2**50
    others = [board.row(MAIN), board.row(FIRST_CHILD + 2), board.row(FIRST_CHILD + 4)]
    assert all(row[column] == 0 for row in others for column in Column)


def test_the_last_row_is_there() -> None:
    """And there is none beyond it."""
    last = Board().row(FIRST_CHILD + CHILDREN - 1)
    last[max(Column)] = -1

    assert last[max(Column)] == -1


def test_a_row_begins_anew_with_a_beat() -> None:
    """A new process has not been silent since the machine started."""
    row = Board().row(MAIN)
    assert row.silent_seconds() > 1
    row[Column.JOB] = 7

    row.clear(pid=42)

    assert row.silent_seconds() < 60
    assert (row[Column.PID], row[Column.JOB]) == (42, 0)
