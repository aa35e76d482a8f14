"""How a delivery ended, as somebody saw it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """The closed set of ways in which a delivery can end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    SOFT_LIMIT = "soft_limit"
    HARD_LIMIT = "hard_limit"
    CHILD_LOST = "child_lost"
    NODE_LOST = "node_lost"
    REJECTED = "rejected"
    LOCK_BUSY = "lock_busy"
    SKIPPED = "skipped"
    IGNORED = "ignored"
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNKNOWN_TASK = "unknown_task"
    UNDECODABLE = "undecodable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One ending and what was seen of it."""

    ending: Ending

    exception_type: str = ""
    """Dotted or plain name of the exception class, empty when there was none."""

    exception_message: str = ""

    traceback: str = ""
    """The traceback as text, empty when there was none."""

    stack: str = ""
    """Where the task stood when it was stopped from outside, as text."""

    waiting_for: str = ""
    """What the kernel said it waited for then."""

    soft_stack: str = ""
    """Where it stood when its soft limit was raised, if it was."""

    cause: str = ""
    """Why a process was lost, in words."""

    requeue: bool = False
    """For ``rejected`` and ``lock_busy``: the process of the task asked for its message to
    be queued again."""

    deliberate: bool = False
    """For a lost process: we ended it ourselves to shut down, which is no strike."""

    started: bool = True
    """For a lost process: whether code of this task may have run in it."""

    @property
    def is_strike(self) -> bool:
        """Whether this loss counts towards ``MAX_STRIKES``."""
        lost = self.ending in (Ending.CHILD_LOST, Ending.NODE_LOST)
        return lost and self.started and not self.deliberate
