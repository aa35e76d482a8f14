"""What the recorder says on the board: of the database, and of what it could not store."""

from __future__ import annotations

from collections.abc import Iterable

from unstuck.pool.board import RECORDER, Board, Column
from unstuck.recorder.chores import Leader
from unstuck.recorder.duty import Duty
from unstuck.recorder.intake import Intake


class Word:
    """Says it again and again."""

    def __init__(self, board: Board, intake: Intake | None, leader: Leader) -> None:
        self._row = board.row(RECORDER)
        self._counts = board.tally.sheet(RECORDER)
        self._intake = intake
        self._leader = leader
        self._counted: dict[str, int] = {}

    def tell(self, duties: Iterable[Duty]) -> None:
        """Say since when the database does not do what it shall, and what came of that."""
        failing = [duty.database_away_since for duty in duties]
        since = min((at for at in failing if at is not None), default=0.0)
        self._row[Column.DATABASE_AWAY] = int(since * 1e9)
        self._count("chores_failed", self._leader.failed)
        if self._intake:
            self._row[Column.LAG] = int(self._intake.lag_seconds * 1e9)
            self._count("facts_dropped", self._intake.dropped)
            self._count("facts_left_out", self._intake.left_out)

    def _count(self, what: str, now: int) -> None:
        """What has been added since; the recorder before this one has counted, too."""
        self._counts.count(what, by=now - self._counted.get(what, 0))
        self._counted[what] = now
