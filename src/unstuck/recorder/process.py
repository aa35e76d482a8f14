"""The recorder process: from the queue of dead letters into the database.

A letter is acknowledged after the commit that holds it. While the database is away the
letters wait on the broker, and nothing else does.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, close_old_connections, connections

from unstuck.core.backoff import doubled
from unstuck.letters.reader import Received, letter_reader
from unstuck.recorder import archive

logger = logging.getLogger(__name__)

FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=30)
BATCH = 100


def run(app: Any) -> None:
    """Archive letters until SIGTERM. The whole life of a recorder process."""
    stopping = _Stopping()
    signal.signal(signal.SIGTERM, stopping)
    _forget_inherited(app)
    failures = 0
    while not stopping.asked:
        try:
            _archive_until(app, lambda: stopping.asked)
            failures = 0
        except Exception as error:
            wait = doubled(FIRST_WAIT, failures, LONGEST_WAIT)
            failures += 1
            _report(error, wait)
            stopping.wait(wait.total_seconds())


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


def _archive_until(app: Any, stopped: Callable[[], bool]) -> None:
    with letter_reader(app) as reader:
        while not stopped():
            if batch := reader.read(BATCH, wait=1.0):
                _archive(app, batch)


def _archive(app: Any, batch: list[Received]) -> None:
    close_old_connections()
    archive.store(app, [received.letter() for received in batch])
    for received in batch:
        received.ack()


def _forget_inherited(app: Any) -> None:
    """Leave the connections of the process that forked this one alone."""
    app._after_fork()
    for connection in connections.all(initialized_only=True):
        # Closing it would end the session of the other process, too.
        connection.connection = None


def _report(error: Exception, wait: timedelta) -> None:
    where = "database" if isinstance(error, DatabaseError) else "broker"
    logger.error(
        "The recorder got no further with the %s; letters wait on the broker; "
        "next try in %s s: %s: %s",
        where,
        wait.total_seconds(),
        type(error).__name__,
        str(error).strip(),
    )


class _Stopping:
    asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.asked and time.monotonic() < deadline:
            time.sleep(0.2)
