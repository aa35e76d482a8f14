"""What we write on a message: the header ``unstuck``.

Strikes travel with the message itself, so that they survive every process and need no
other store than the broker, whichever it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from unstuck.core.clock import system_clock
from unstuck.core.delivery import Delivery
from unstuck.core.outcome import Ending, Outcome
from unstuck.letters.message import COUNT, SENT

HEADER = "unstuck"
MOST_STRIKES = 100
"""More than anybody allows."""

MOST_SECONDS = 2**33
"""Some day in 2242."""

MOST_ATTEMPTS = 2**30
"""More than anybody retries, and no more than a database column holds."""


def delivery_from(
    headers: Mapping[str, Any], queue: str, *, one_step: bool = False
) -> Delivery:
    """The facts of a hand-over, read from the headers of its message.

    Headers come from outside: whatever is not as it should be counts as not there. Losses
    that only the broker has counted, but for the last one, which is about to be settled,
    count as if they were of now.
    """
    delivery = Delivery(
        task_id=str(headers.get("id") or ""),
        task_name=str(headers.get("task") or ""),
        queue=queue,
        attempt=_attempt(headers.get("retries")),
        one_step=one_step,
        dice=random.random(),  # noqa: S311 - jitter is no secret
    )
    if HEADER not in headers and COUNT not in headers:
        return delivery  # Most of them.
    notes = headers.get(HEADER)
    notes = notes if isinstance(notes, Mapping) else {}
    strikes = notes.get("strikes")
    return replace(
        delivery,
        strikes=(
            *_instants(strikes if isinstance(strikes, list) else []),
            *_strikes_by_count(headers.get(COUNT)),
        ),
        unknown_since=next(_instants([notes.get("unknown_since")]), None),
        waits_since=next(_instants([notes.get("waits_since")]), None),
    )


def sent_at(headers: Mapping[str, Any] | None) -> float | None:
    """When a message was sent, in seconds since the epoch; stock Celery does not say."""
    said: Any = (headers or {}).get(SENT)
    # What is no number, and what no clock shows, is as if it was not there.
    return said if type(said) in (int, float) and 0 < said < MOST_SECONDS else None


def after(
    delivery: Delivery, outcome: Outcome, now: datetime, keep: int
) -> dict[str, Any]:
    """The headers to write on a message that is queued again.

    No more than ``keep`` strikes are ever counted, so older ones are left out.
    """
    strikes = delivery.strikes
    if outcome.is_strike:
        strikes = (*strikes, now)[-keep:]
    notes: dict[str, Any] = {"strikes": [strike.timestamp() for strike in strikes]}
    if outcome.ending is Ending.UNKNOWN_TASK:
        notes["unknown_since"] = (delivery.unknown_since or now).timestamp()
    if outcome.ending is Ending.LOCK_BUSY:
        notes["waits_since"] = (delivery.waits_since or now).timestamp()
    return {HEADER: notes}


def _strikes_by_count(count: Any) -> list[datetime]:
    times = min(count, MOST_STRIKES) - 1 if type(count) is int else 0
    return [system_clock()] * times


def _attempt(value: Any) -> int:
    good = isinstance(value, int) and not isinstance(value, bool)
    return min(max(value, 0), MOST_ATTEMPTS) if good else 0


def _instants(stamps: list[Any]) -> Any:
    for stamp in stamps:
        try:
            yield datetime.fromtimestamp(stamp, UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            continue
