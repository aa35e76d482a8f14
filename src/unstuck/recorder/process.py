"""The recorder process: into the database goes what happened.

Letters come from their queue on the broker, and are acknowledged after the commit that
holds them: while the database is away they wait there. Facts come from the processes of
the node, and are dropped when they cannot be stored for long: nothing waits for them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from datetime import timedelta
from socket import gethostname
from typing import Any

from django.db import DatabaseError, Error

from unstuck.letters.reader import LetterReader, Received, letter_reader
from unstuck.letters.redact import storable
from unstuck.outbox.relay import Relay
from unstuck.pool.board import Board
from unstuck.recorder import archive, database
from unstuck.recorder.chores import Leader
from unstuck.recorder.duty import Duty
from unstuck.recorder.intake import Intake
from unstuck.recorder.leader import leader_of
from unstuck.recorder.node import About, Presence
from unstuck.recorder.word import Word
from unstuck.worker.channel import FactChannel

BATCH = 100
OUTBOX_WAIT = timedelta(seconds=8)
PAUSE_SECONDS = 0.5
"""Between two turns when there is nothing more to do."""


def run(
    app: Any,
    facts: FactChannel | None = None,
    beat: Callable[[], None] | None = None,
    about: About | None = None,
    board: Board | None = None,
) -> None:
    """Archive letters and store facts until SIGTERM. The whole life of a recorder.

    ``beat`` is called between all steps, twice a second unless one of them takes long:
    a broker or a database that hangs takes up to fifteen seconds at each try. With
    ``about`` and the ``board`` of a node, its row says that it is there.
    """
    stopping = _Stopping()
    signal.signal(signal.SIGTERM, stopping)
    _become_recorder(app)
    intake = Intake(facts, node=about.name if about else "") if facts else None
    leader = leader_of(app, about.name if about else f"recorder@{gethostname()}")
    presence = _presence(about, board, intake, leader)
    word = Word(board, intake, leader) if board else None
    with closing(_Letters(app)) as letters, _taking(intake):
        archiving = Duty(letters.archive, "letters wait on the broker")
        # Archiving is the last: a broker that hangs takes seconds to be given up.
        # Somebody may be waiting for what these messages do.
        relay = Relay(app, database.writing)
        sending = Duty(relay.work, "messages wait in the outbox", longest=OUTBOX_WAIT)
        leading = Duty(leader.work, "others do the chores")
        duties = [leading, sending, archiving]
        if intake:
            duties.insert(0, Duty(intake.store, "facts wait in memory"))
        if presence:
            # The first: facts are stored once by what the row of their node says.
            duties.insert(0, Duty(presence.tell, "the row of this node grows old"))
        busy = True
        while not stopping.asked:
            _pause(0.0 if busy else PAUSE_SECONDS, intake)
            turns = [_turn(duty, beat) for duty in duties]
            busy = any(turns)
            if word:
                word.tell(duties)
        if intake:
            intake.finish()
        Duty(leader.step_down, "another one leads in a while").turn()
        # What main buried at the very end need not wait for the next start.
        archiving.turn()
        if presence:
            Duty(presence.leave, "this node will seem lost").turn()


def _presence(
    about: About | None, board: Board | None, intake: Intake | None, leader: Leader
) -> Presence | None:
    if about is None or board is None:
        return None

    def told() -> dict[str, Any]:
        own = {"chores_failed": leader.failed}
        if intake is None:
            return own
        return {
            **own,
            "running": storable(intake.running),
            "facts_dropped": intake.dropped,
            "facts_left_out": intake.left_out,
            "facts_lag_seconds": intake.lag_seconds,
        }

    return Presence(about, board, told)


def _taking(intake: Intake | None) -> AbstractContextManager[None]:
    return intake.always_taking() if intake else nullcontext()


def _turn(duty: Duty, beat: Callable[[], None] | None) -> bool:
    more = duty.turn()
    if beat:
        beat()
    return more


def _pause(seconds: float, intake: Intake | None) -> None:
    if intake:
        intake.wait(seconds)
    else:
        time.sleep(seconds)


def archive_waiting(app: Any) -> int:
    """Archive what waits on the broker now; says how many letters that were.

    Raises what the broker or the database raises; the letters stay where they are.
    """
    archived = 0
    with letter_reader(app) as reader:
        while batch := reader.read(BATCH, wait=1.0):
            _archive(app, batch)
            archived += len(batch)
    return archived


class _Letters:
    """Archives what the broker has; holds a connection to it while that works."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._reader: LetterReader | None = None
        self._held_open = ExitStack()
        self._is_doubtful = False

    def archive(self) -> bool:
        """Archive a batch; says whether there was any letter.

        Raises what the broker or the database raises; the letters stay on the broker.
        """
        if self._is_doubtful:
            # Brokers count how often a letter comes back, and may have enough of it.
            archive.take_letters()
        try:
            if self._reader is None:
                self._reader = self._held_open.enter_context(letter_reader(self._app))
            batch = self._reader.read(BATCH, wait=0.0)
            if batch:
                _archive(self._app, batch)
        except Exception as error:
            self._is_doubtful = isinstance(error, Error)
            # What this connection has in hand is the broker's again.
            self.close()
            raise
        self._is_doubtful = False
        return bool(batch)

    def close(self) -> None:
        """Close the connection."""
        self._reader = None
        self._held_open.close()


def _archive(app: Any, batch: list[Received]) -> None:
    letters = [received.letter() for received in batch]
    to_store = [letter for letter in letters if letter]
    refused = [letter.id for letter in archive.store(app, to_store)]
    for received, letter in zip(batch, letters, strict=True):
        if letter is None or letter.id not in refused:
            received.ack()
    if refused:
        message = f"The database takes no row of these letters: {', '.join(refused)}"
        raise DatabaseError(message)


def _become_recorder(app: Any) -> None:
    """Be a process with connections of its own.

    Those of the process that forked this one are left alone.
    """
    app._after_fork()
    database.leave_connections_to_parent()
    database.prepare()


class _Stopping:
    asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True
