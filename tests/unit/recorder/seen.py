"""Facts and nodes for tests of the recorder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from unstuck.core.facts import Incident, Minute, Run
from unstuck.recorder.node import About

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def run(task_id: str = "id", **known: Any) -> Run:
    """A run of which only the named facts matter."""
    essence = {
        "task_name": "shop.send",
        "queue": "work",
        "ending": "failed",
        "verdict": "bury",
        "ended_at": NOON,
    }
    return Run(task_id=task_id, **{**essence, **known})


def minute(minute: datetime = NOON, **known: Any) -> Minute:
    """A minute of which only the named facts matter."""
    essence = {
        "task_name": "shop.send",
        "queue": "work",
        "node": "worker@host",
        "counts": {"succeeded": 1},
    }
    return Minute(minute=minute, **{**essence, **known})


def incident(**known: Any) -> Incident:
    """An incident of which only the named facts matter."""
    essence = {"kind": "stall", "at": NOON, "process": "main", "what": "Silent."}
    return Incident(**{**essence, **known})


def about(**known: Any) -> About:
    """A node of which only the named facts matter."""
    essence: dict[str, Any] = {
        "name": "celery@host",
        "pid": 7,
        "started_at": NOON,
        "pool": "shop:Pool",
        "concurrency": 2,
        "queues": ("mail", "work"),
        "broker": "redis",
    }
    return About(**{**essence, **known})
