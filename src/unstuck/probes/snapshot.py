"""What the board says of a node at one moment, in seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from unstuck.pool.board import MAIN, RECORDER, SUPERVISOR, Board, Column


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What stays as it is while a node lives."""

    node: str
    supervised: bool
    """Whether the pool is ours: main and the children then have a supervisor."""

    stall_seconds: float

    tier: str = "node"
    """How finely its metrics tell apart what happened."""

    started_at: float = 0.0
    """In seconds since the epoch."""

    info: Mapping[str, str] = field(default_factory=dict)
    """What else there is to say of it, by label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A node at one moment. ``None`` is what never was, or is not known."""

    supervisor_silent: float
    main_up: bool
    main_silent: float
    consumes: bool
    """Whether main has consumed since it started."""

    stopping: bool
    connected: bool
    broker_answered_ago: float | None
    broker_away_for: float | None
    waiting: int | None
    """Messages in the queues that main consumes."""

    slots: int
    free: int
    serving: int
    longest_for: float | None
    """How long the task that runs longest has run."""

    taken_ago: float | None
    paused: bool
    full: bool
    deaf_for: float | None
    database_away_for: float | None


def take(board: Board) -> Snapshot:
    """Read the board; nothing waits for it, and it waits for nothing."""
    main, now = board.row(MAIN), time.monotonic_ns()

    def ago(instant: int) -> float | None:
        return max(0.0, (now - instant) / 1e9) if instant else None

    waiting = main[Column.WAITING]
    return Snapshot(
        supervisor_silent=board.row(SUPERVISOR).silent_seconds(),
        main_up=bool(main[Column.PID]),
        main_silent=main.silent_seconds(),
        consumes=bool(main[Column.READY]),
        stopping=bool(main[Column.STOPPING]),
        connected=bool(main[Column.CONNECTED]),
        broker_answered_ago=ago(main[Column.ANSWERED]),
        broker_away_for=ago(main[Column.UNANSWERED]),
        waiting=waiting - 1 if waiting else None,
        slots=main[Column.SLOTS],
        free=main[Column.FREE],
        serving=main[Column.SERVING],
        longest_for=ago(main[Column.LONGEST]),
        taken_ago=ago(main[Column.TAKEN]),
        paused=bool(main[Column.PAUSED]),
        full=bool(main[Column.FULL]),
        deaf_for=ago(main[Column.DEAF]),
        database_away_for=ago(board.row(RECORDER)[Column.DATABASE_AWAY]),
    )
