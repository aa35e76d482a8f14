"""Sending what the process that wrote it did not: it died, or the broker was away.

One sender at a time, whoever it is, so that the order is kept. Its lease ends by itself
when it dies. No transaction is open while the broker is spoken to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from django.db.models import F, QuerySet
from kombu.exceptions import OperationalError

from unstuck.core.backoff import doubled
from unstuck.core.clock import system_clock
from unstuck.leases import Step, alone
from unstuck.letters.redact import clean
from unstuck.models import OutboxMessage
from unstuck.outbox.publication import Publication
from unstuck.outbox.rows import REFUSALS, rows
from unstuck.profile import PUBLISH_SECONDS

BATCH = 100
BATCH_SECONDS = 10.0
LEASE = "outbox"
LEASE_LENGTH = timedelta(seconds=40)
"""Longer than a batch and the publish after it may take."""

FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=1)
EVERY_SECONDS = 1.0


class Relay:
    """The recorder's share: looks for what is due once a second."""

    def __init__(self, app: Any, step: Step = nullcontext) -> None:
        self._app, self._step = app, step
        self._look_at = time.monotonic()

    def work(self) -> bool:
        """Send a batch if one is due; says whether there is more."""
        if time.monotonic() < self._look_at:
            return False
        if send_due(self._app, self._step):
            return True
        self._look_at = time.monotonic() + EVERY_SECONDS
        return False


def send_due(app: Any, step: Step = nullcontext) -> int:
    """Send a batch of what is due, the oldest first; says how many that were.

    Nothing when another process does so just now. Raises what the broker or the database
    raises; what is not sent stays. Each ``step`` is what is done with the database in one go.
    """
    with step():
        if not _due().exists():
            return 0
    with alone(LEASE, LEASE_LENGTH, step) as ours:
        if not ours:
            return 0
        with step():
            batch = list(_due()[:BATCH])
        return _send(app, batch, step)


def _due() -> QuerySet[OutboxMessage]:
    return rows().filter(due_at__lte=system_clock()).order_by("pk")


def _send(app: Any, batch: list[OutboxMessage], step: Step = nullcontext) -> int:
    give_up_at = time.monotonic() + BATCH_SECONDS
    sent, rest = 0, iter(batch)
    row = next(rest, None)
    while row and time.monotonic() < give_up_at:
        _send_one(app, row, step)
        sent += 1
        with step():
            row.delete()
            row = _next_due(rest)
    return sent


def _next_due(rest: Iterator[OutboxMessage]) -> OutboxMessage | None:
    """The next one that its process has not sent meanwhile, nor said that it is at it."""
    for row in rest:
        if _due().filter(message_id=row.message_id).exists():
            return row
    return None


def _send_one(app: Any, row: OutboxMessage, step: Step) -> None:
    with app.producer_or_acquire() as producer:
        try:
            Publication.of_row(row).publish(
                producer,
                retry=True,
                retry_policy=dict(app.conf.task_publish_retry_policy),
                timeout=PUBLISH_SECONDS,
                confirm_timeout=PUBLISH_SECONDS,
            )
        except Exception as error:
            if not _is_away(producer.connection, error):
                with step():
                    _refused(row, error)
            raise


def _is_away(connection: Any, error: Exception) -> bool:
    """Whether it is the broker, and not this message."""
    cause = error.__cause__ if isinstance(error, OperationalError) else error
    # On Redis kombu takes each KeyError for a lost connection.
    return not isinstance(cause, KeyError) and isinstance(
        cause, (OSError, *connection.connection_errors)
    )


def _refused(row: OutboxMessage, error: Exception) -> None:
    """Count it; from the third time on others go first, as it may be the message."""
    attempts = row.attempts + 1
    values: dict[str, Any] = {
        "attempts": F("attempts") + 1,
        "last_error": clean(f"{type(error).__name__}: {error}"),
    }
    if attempts >= REFUSALS:
        wait = doubled(FIRST_WAIT, attempts - REFUSALS, LONGEST_WAIT)
        values["due_at"] = system_clock() + wait
    rows().filter(pk=row.pk).update(**values)
