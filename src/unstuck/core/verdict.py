"""What becomes of a message. There is nothing else that can."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Reason(StrEnum):
    """Why a message was buried."""

    FAILED = "failed"
    SOFT_LIMIT = "soft_limit"
    HARD_LIMIT = "hard_limit"
    POISON = "poison"
    LOST = "lost"
    REJECTED = "rejected"
    UNKNOWN_TASK = "unknown_task"
    UNDECODABLE = "undecodable"


@dataclass(frozen=True, slots=True)
class Ack:
    """It is over: the broker may forget the message."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Run it again as the next attempt, not before ``at``."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Requeue:
    """Run it again as the same attempt, not before ``at``."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Bury:
    """It becomes a dead letter."""

    reason: Reason


Verdict = Ack | Retry | Requeue | Bury
