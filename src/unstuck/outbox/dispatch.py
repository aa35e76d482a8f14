"""What becomes of a message that waits for a commit.

Within a transaction it is a row of that transaction, and sent after the commit. Outside
of one it is sent at once, and becomes a row when the broker does not take it.

Django seam (tests/integration/test_outbox.py): ``connection.run_on_commit`` is a new list
whenever a transaction or a savepoint is rolled back, and when a transaction begins anew.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error, connections, transaction
from kombu.exceptions import OperationalError

from unstuck import conf
from unstuck.core.errors import OutboxError, OutboxFull
from unstuck.fields import Fields
from unstuck.outbox import relay
from unstuck.outbox.publication import Publication
from unstuck.outbox.rows import GRACE, Written, hold, is_waiting, remove, write

NOW = timedelta(0)
HOLD_SECONDS = 5.0
"""How often the recorder is told that a process is still at its rows.

One publish on top of that, of 10 s at most, and ``GRACE`` is not over yet.
"""

NEVER = float("-inf")
CHUNK = 100

logger = logging.getLogger(__name__)


def dispatch(
    app: Any, publications: Sequence[Publication], producer: Any = None
) -> None:
    """Send messages when the transaction of the caller commits; now, if there is none.

    Raises ``OutboxError`` when they could be neither sent nor written.
    """
    alias = conf.current().database
    if _is_open(connections[alias]):
        _write_into(app, alias, publications)
    elif other := _other_transaction(alias):
        # Our tables are not where this one writes: all we can do is wait for it.
        again = functools.partial(dispatch, app, publications)
        transaction.on_commit(again, using=other)
    else:
        _send_or_write(app, publications, producer)


def _is_open(connection: Any) -> bool:
    by_hand = connection.connection is not None and not connection.autocommit
    return bool(connection.in_atomic_block or by_hand)


def _other_transaction(alias: str) -> str | None:
    for connection in connections.all(initialized_only=True):
        if connection.alias != alias and connection.in_atomic_block:
            return str(connection.alias)
    return None


# Within a transaction.


class _Batch:
    """What one transaction has written so far."""

    def __init__(self, held_at: float) -> None:
        self.hooks: Any = None
        """The hooks of that transaction, to know it by."""

        self.written: list[tuple[int, Publication]] = []
        self.held_at = held_at
        """Since when the recorder leaves them to us, on the monotonic clock."""

        self.over = False


_batches: WeakKeyDictionary[Any, _Batch] = WeakKeyDictionary()


def _write_into(app: Any, alias: str, publications: Sequence[Publication]) -> None:
    connection = connections[alias]
    if not connection.in_atomic_block:
        # Nobody tells when it is committed by hand: the recorder will see.
        write(publications, NOW)
        return
    began = time.monotonic()
    written = write(publications, GRACE)
    batch = _batches.get(connection)
    if batch is None or batch.over or batch.hooks is not connection.run_on_commit:
        batch = _batches[connection] = _Batch(began)
        after_commit = functools.partial(_after_commit, app, batch)
        transaction.on_commit(after_commit, using=alias)
        batch.hooks = connection.run_on_commit
    batch.written.extend(written)
    if connection.savepoint_ids:
        batch.held_at = NEVER  # A savepoint may take them back: who holds them sees.


def _after_commit(app: Any, batch: _Batch) -> None:
    batch.over = True
    # Whoever captures hooks to run them may do so more than once.
    written, batch.written = batch.written, []
    try:
        _send_written(app, written, batch.held_at)
    except Error as error:
        logger.warning(
            "The database cannot be asked after a commit; the recorder sends what is in "
            "the outbox, some of it perhaps once more: %(fields)s",
            Fields(error=error),
        )


def _send_written(app: Any, written: Written, held_at: float) -> None:
    if _order.is_behind(app):
        _order.leave(written)
        return
    while written:
        if time.monotonic() >= held_at + HOLD_SECONDS:
            held_at = time.monotonic()
            written = hold(written, GRACE)
        written = _send_some(app, written, held_at + HOLD_SECONDS)


def _send_some(app: Any, written: Written, until: float) -> Written:
    """Send a chunk of it, or for a while; what is left to be sent by this process."""
    sent: list[int] = []
    try:
        for pk, publication in written[:CHUNK]:
            _send(app, publication)
            sent.append(pk)
            if time.monotonic() >= until:
                break
    except SoftTimeLimitExceeded:
        raise  # That is for the task; what is left is for the recorder.
    except Exception as error:
        # It is committed, and so it is not the caller's any more.
        _say_left(publication, error)
        _order.leave(written[len(sent) :])
        return []
    finally:
        remove(sent)
    return written[len(sent) :]


# Outside of one.


def _send_or_write(
    app: Any, publications: Sequence[Publication], producer: Any
) -> None:
    if _is_behind(app):
        _order.left(_write(publications))
        return
    for place, publication in enumerate(publications):
        try:
            _send(app, publication, producer)
        except OperationalError as error:
            _keep(publications[place:], error)
            return


def _is_behind(app: Any) -> bool:
    try:
        return _order.is_behind(app)
    except Error:
        return False  # The broker may be there when the database is not.


def _keep(publications: Sequence[Publication], error: Exception) -> None:
    try:
        _order.left(_write(publications))
    except OutboxError as cause:
        cause.add_note(f"The broker did not take it either: {error}")
        raise
    _say_left(publications[0], error)


def _write(publications: Sequence[Publication]) -> Written:
    connection = connections[conf.current().database]
    was_there = connection.connection is not None
    try:
        return write(publications, NOW)
    except OutboxFull:
        raise
    except OutboxError:
        if not was_there:
            raise
        # The server may have closed it while nobody used it.
        connection.close_if_unusable_or_obsolete()
        return write(publications, NOW)


def _send(app: Any, publication: Publication, producer: Any = None) -> None:
    """As Celery does: tell the result store, then the broker."""
    name = publication.task_name
    with (
        app.producer_or_acquire(producer) as chosen,
        app.naming_result_store(name),
        chosen.connection._reraise_as_library_errors(),
    ):
        if not publication.ignored:
            app.backend.on_task_call(chosen, publication.task_id)
        publication.publish(chosen, **publication.patience)


def _say_left(publication: Publication, error: Exception) -> None:
    logger.warning(
        "Task %(task)s waits in the outbox, for the recorder to send it: %(fields)s",
        Fields(
            task_id=publication.task_id, task_name=publication.task_name, error=error
        ),
    )


# In order.


class _Order:
    """Which rows of this process are left to the recorder; others must not pass them."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._first: int | None = None
        self._last: int | None = None

    def is_behind(self, app: Any) -> bool:
        """Whether any of them is still there. Raises Django's ``DatabaseError``."""
        self._forget_after_fork()
        if self._first is None or self._last is None:
            return False
        if is_waiting(self._last) and not self._catch_up(app):
            return True
        self._first = self._last = None
        return False

    def _catch_up(self, app: Any) -> bool:
        """Send the rest ourselves, if the broker is back: the first is gone.

        Else who writes one a second would wait for the recorder for ever.
        """
        assert self._first is not None  # noqa: S101 - is_behind() has looked
        assert self._last is not None  # noqa: S101
        if is_waiting(self._first):
            return False
        try:
            relay.send_due(app)
        except (Error, SoftTimeLimitExceeded):
            raise
        except Exception:
            # Whatever it is, the recorder meets it as well and says so.
            return False
        return not is_waiting(self._last)

    def leave(self, written: Written) -> None:
        """Leave rows to the recorder, from now on."""
        self.left(hold(written, NOW))

    def left(self, written: Written) -> None:
        """These rows are the recorder's already."""
        self._forget_after_fork()
        if written:
            self._first = self._first or written[0][0]
            self._last = written[-1][0]

    def _forget_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._first = self._last = None


_order = _Order()
