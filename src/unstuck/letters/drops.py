"""What the broker itself has dropped, as dead letters.

RabbitMQ hands such a message on as it was, with the header ``x-death``: which queue it
was in and why it is no more, the latest death first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.letters.letter import Letter
from unstuck.letters.message import DEATHS, StoredMessage

WORDS = {
    "expired": "its time in the queue was over (x-death: expired)",
    "maxlen": "the queue was full (x-death: maxlen)",
    "delivery_limit": "it was handed out and lost too often (x-death: delivery_limit)",
    "rejected": "a consumer rejected it (x-death: rejected)",
}


def was_dropped(message: Any) -> bool:
    """Whether a message came here because a queue has dropped it."""
    return bool(_latest_death(message))


def is_over(message: Any) -> bool:
    """Whether it was dropped since its task had expired, which is how a call wanted it."""
    if _latest_death(message).get("reason") != "expired":
        return False
    try:
        expires = datetime.fromisoformat(str(message.headers["expires"]))
    except (KeyError, ValueError):
        return False
    if expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return expires <= system_clock()


def letter_of_drop(message: Any) -> Letter:
    """The letter of a message that the broker has dropped."""
    death = _latest_death(message)
    why = str(death.get("reason") or "")
    queue = str(death.get("queue") or "")
    headers = message.headers
    stored = StoredMessage.of(message, queue)
    return Letter(
        message=stored,
        task_id=str(headers.get("id") or ""),
        task_name=str(headers.get("task") or ""),
        reason=Reason.POISON if why == "delivery_limit" else Reason.REJECTED,
        buried_at=_instant(death.get("time")),
        cause=f"dropped by the broker: {WORDS.get(why) or why}",
        attempts=_whole(headers.get("retries")) + 1,
        dropped=True,
        # Read again after a crash, it must be found by the same id.
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, _identity(stored, death))),
    )


def _latest_death(message: Any) -> Mapping[str, Any]:
    deaths = (message.headers or {}).get(DEATHS)
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return latest if isinstance(latest, Mapping) else {}


def _identity(stored: StoredMessage, death: Mapping[str, Any]) -> str:
    facts = [stored.headers.get("id"), stored.properties.get("message_id")]
    facts += [death.get(name) for name in ("queue", "reason", "time", "count")]
    return f"{facts!r} {stored.body.hex()}"


def _instant(value: Any) -> datetime:
    if not isinstance(value, datetime):
        return system_clock()
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _whole(value: Any) -> int:
    return max(value, 0) if type(value) is int else 0
