"""What is said: the same dict for a webhook, a mail and a function."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from unstuck.core.alerts import EVENTS
from unstuck.models import Alert

SHOWN = 5
"""Of each condition so many are told one by one; the rest is counted."""

WORDS = {"new": "NEW", "firing": "FIRING", "lasting": "STILL", "resolved": "RESOLVED"}
STATES = tuple(WORDS)

Message = dict[str, Any]


def message_of(rows: Sequence[Alert]) -> Message:
    """One message of all these."""
    groups = _groups(rows)
    alerts = [row for _, _, some in groups for row in some[:SHOWN]]
    lines = [line for state, name, some in groups for line in _lines(state, name, some)]
    return {
        "text": "\n".join(lines),
        "title": _title(groups),
        "alerts": [_alert(row) for row in alerts],
        "more": len(rows) - len(alerts),
    }


def trial() -> Message:
    """What ``unstuck alerts test`` sends."""
    text = "TEST unstuck alerts: this target is told. Nothing has happened."
    return {"text": text, "title": text, "alerts": [], "more": 0}


def state_of(row: Alert) -> str:
    """What there is to say of it."""
    if row.condition in EVENTS:
        return "new"
    if row.resolved_at is not None:
        return "resolved"
    is_known = row.told_at is not None and row.told_at >= row.since
    return "lasting" if is_known else "firing"


Group = tuple[str, str, list[Alert]]


def _groups(rows: Sequence[Alert]) -> list[Group]:
    """By state and condition, what is over last."""

    def key(row: Alert) -> tuple[int, str]:
        return STATES.index(state_of(row)), row.condition

    ordered = sorted(rows, key=key)
    return [
        (STATES[place], condition, list(some))
        for (place, condition), some in groupby(ordered, key)
    ]


def _title(groups: Sequence[Group]) -> str:
    parts = []
    for state, condition, some in groups:
        name = condition.replace("_", " ")
        what = some[0].subject if len(some) == 1 else f"{len(some)} times"
        parts.append(f"{WORDS[state]} {name}" + (f": {what}" if what else ""))
    return "; ".join(parts)


def _lines(state: str, condition: str, rows: Sequence[Alert]) -> list[str]:
    lines = [line for row in rows[:SHOWN] for line in _lines_of(state, row)]
    more = len(rows) - SHOWN
    if more > 0:
        lines.append(f"{WORDS[state]} … and {more} more: {condition.replace('_', ' ')}")
    return lines


def _lines_of(state: str, row: Alert) -> list[str]:
    since = f"since {_clock(row.since)}"
    if state == "resolved" and row.resolved_at is not None:
        return [f"{WORDS[state]} {row.what} ({since}, over {_clock(row.resolved_at)})"]
    what = f"{WORDS[state]} {row.what} ({since})"
    return [what, f"  What to do: {row.remedy}"] if row.remedy else [what]


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _alert(row: Alert) -> dict[str, Any]:
    over = None if row.condition in EVENTS else row.resolved_at
    return {
        "id": str(row.alert_id),
        "state": state_of(row),
        "condition": row.condition,
        "subject": row.subject,
        "what": row.what,
        "remedy": row.remedy,
        "since": row.since.isoformat(),
        "resolved_at": over.isoformat() if over else None,
        "facts": row.facts,
    }
