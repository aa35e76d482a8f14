"""The outbox as rows: written with their transaction, gone once they are sent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from django.db import Error, connections, transaction
from django.db.models import QuerySet

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.core.errors import OutboxError, OutboxFull
from unstuck.letters.redact import clean
from unstuck.models import OutboxMessage
from unstuck.outbox.publication import Publication
from unstuck.profile import PUBLISH_SECONDS

GRACE = timedelta(seconds=2 * PUBLISH_SECONDS)
"""So long a row is left to the process that wrote it, from when that last said so.

It cannot say so while it waits for the broker to take a message.
"""

REFUSALS = 3
"""So often a message that the broker refuses keeps the others waiting."""

CHUNK = 500
"""Rows of one statement: SQLite takes their ids as parameters."""

COUNT_SECONDS = 1.0
SHORT = 255

T = TypeVar("T")

Written = Sequence[tuple[int, Publication]]
"""Messages with the keys of their rows, in order."""


def rows() -> QuerySet[OutboxMessage]:
    """All of them."""
    return OutboxMessage.objects.using(conf.current().database)


def write(publications: Sequence[Publication], wait: timedelta) -> Written:
    """Write messages in the transaction of the caller, if there is one.

    The recorder leaves them alone for so long. Raises ``OutboxFull`` when there are too
    many already, and ``OutboxError`` when the database does not take them; then none is
    written.
    """
    database = conf.current().database
    now = system_clock()
    made = [_row(one, now, now + wait) for one in publications]
    try:
        # With a savepoint, so that whoever catches an error can go on.
        with transaction.atomic(using=database):
            _insert(made, database)
            # Not before: who has read and then writes may find SQLite locked.
            _room.take(len(made))
    except Error as error:
        raise _not_written(publications, database, error) from error
    return [(row.pk, one) for row, one in zip(made, publications, strict=True)]


def _insert(made: Sequence[OutboxMessage], database: str) -> None:
    if connections[database].features.can_return_rows_from_bulk_insert:
        rows().bulk_create(made, batch_size=CHUNK)
        return
    for row in made:
        row.save(using=database, force_insert=True)


def hold(written: Written, wait: timedelta) -> Written:
    """Put off when the recorder takes them; those that are still there."""
    there: set[UUID] = set()
    # Not by their keys: SQLite gives the key of a row that was rolled back once more.
    for some in _chunks([one.message_id for _, one in written]):
        found = rows().filter(message_id__in=some)
        found.update(due_at=system_clock() + wait)
        there.update(found.values_list("message_id", flat=True))
    return [(pk, one) for pk, one in written if one.message_id in there]


def remove(keys: Iterable[int]) -> None:
    """These are sent."""
    for some in _chunks(list(keys)):
        rows().filter(pk__in=some).delete()


def is_waiting(pk: int) -> bool:
    """Whether a row keeps those after it waiting."""
    return rows().filter(pk=pk, attempts__lt=REFUSALS).exists()


def _row(one: Publication, now: datetime, due_at: datetime) -> OutboxMessage:
    return OutboxMessage(
        message_id=one.message_id,
        task_id=clean(one.task_id)[:SHORT],
        task_name=clean(one.task_name)[:SHORT],
        queue=clean(one.queue)[:SHORT],
        body=one.body,
        envelope=one.envelope(),
        written_at=now,
        due_at=due_at,
    )


def _not_written(
    publications: Sequence[Publication], database: str, error: Exception
) -> OutboxError:
    names = ", ".join(sorted({one.task_name for one in publications}))
    return OutboxError(
        f"{names} was not sent: it cannot be written to the outbox in the database "
        f"{database!r}: {str(error).strip()}. Is the database there, and was "
        f"`manage.py migrate unstuck` run?"
    )


def _chunks(keys: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(keys), CHUNK):
        yield keys[start : start + CHUNK]


class _Room:
    """How many more rows may be written; counted once a second, and when in doubt."""

    def __init__(self) -> None:
        self._held = 0
        self._counted_at = -COUNT_SECONDS

    def take(self, number: int) -> None:
        """So many were written just now. Raises ``OutboxFull`` if these are too many."""
        limit = conf.current().outbox_limit
        self._held += number
        old = time.monotonic() - self._counted_at >= COUNT_SECONDS
        # Some of what was counted may have been sent, or rolled back.
        if old or self._held > limit:
            self._count()
        if self._held > limit:
            raise OutboxFull(
                f"Not sent: the outbox holds {self._held - number} messages and may hold "
                f"{limit} (UNSTUCK['OUTBOX_LIMIT']). Is the broker there, and does a "
                f"worker or `manage.py unstuck recorder` run, which sends them?"
            )

    def _count(self) -> None:
        self._held = rows().count()
        self._counted_at = time.monotonic()


_room = _Room()
