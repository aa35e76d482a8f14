"""What the recorder says on the board, for the metrics of its node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from unstuck.pool.board import RECORDER, Board, Column
from unstuck.recorder.word import Word


def recorder(board: Board) -> tuple[Word, Any, Any]:
    """A recorder that has just started."""
    intake: Any = SimpleNamespace(lag_seconds=0.0, dropped=0, left_out=0)
    leader: Any = SimpleNamespace(failed=0)
    return Word(board, intake, leader), intake, leader


def test_counts_go_on_where_the_recorder_before_stopped() -> None:
    """Its own begin with 0, and those of the node do not."""
    board = Board()
    for _ in range(2):
        word, intake, leader = recorder(board)
        for dropped in (0, 3, 3, 5):
            intake.dropped, intake.left_out, leader.failed = dropped, 1, 2
            word.tell([])
        board.row(RECORDER).clear()

    assert board.tally.total("facts_dropped") == {"": 10}
    assert board.tally.total("facts_left_out") == {"": 2}
    assert board.tally.total("chores_failed") == {"": 4}


def test_the_lag_and_the_database_that_is_away_longest() -> None:
    """And that it is back."""
    board = Board()
    word, intake, _ = recorder(board)
    intake.lag_seconds = 2.5
    away: list[Any] = [
        SimpleNamespace(database_away_since=since) for since in (None, 70.0, 50.0)
    ]

    word.tell(away)

    row = board.row(RECORDER)
    assert (row[Column.LAG], row[Column.DATABASE_AWAY]) == (2.5e9, 50e9)
    word.tell(away[:1])
    assert row[Column.DATABASE_AWAY] == 0


def test_without_facts_there_is_none_to_wait() -> None:
    """As beside no worker."""
    board = Board()
    Word(board, None, SimpleNamespace(failed=1)).tell([])  # type: ignore[arg-type]

    assert board.row(RECORDER)[Column.LAG] == 0
    assert board.tally.total("chores_failed") == {"": 1}
