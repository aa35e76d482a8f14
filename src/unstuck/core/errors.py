"""The exceptions of unstuck.

UnstuckError
 ├ SettingsError       a setting that cannot be used
 ├ NoApp               no Celery app to work with, or none of ours
 ├ NoSuchLetter        an id that fits no letter, or more than one
 ├ ReplayError         a dead letter that cannot be put back as asked
 ├ PurgeError          dead letters that cannot be deleted as asked
 ├ NotAllSent          some of many tasks that were published at once
 ├ OutboxError         a message that cannot be written to the outbox
 │  └ OutboxFull       because there are as many as there may be
 ├ LockError           a lock that cannot be had or kept
 │  ├ LockBusy         because somebody else has it
 │  ├ LockLost         because its lease was over, or somebody released it, before its holder was done
 │  ├ DeadlockDetected because all who are in this wait for each other
 │  └ LocksUnreachable because what keeps the locks did not answer in time
 ├ ReleaseError        a lock that cannot be taken from its holder as asked
 ├ BrokerUnreachable   the broker did not answer in time
 └ ProofFailed         `unstuck prove` that could not be carried out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class UnstuckError(Exception):
    """Whatever unstuck itself raises."""


class SettingsError(UnstuckError):
    """Settings that cannot be used; ``problems`` names each, its value and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NotAllSent(UnstuckError):
    """Of many tasks that were published at once, some were not taken by the broker.

    ``failed`` maps the place in the list of calls to the error, ``results`` has what the
    call would have returned, with ``None`` in the places of those.
    """

    def __init__(
        self, results: Sequence[Any], failed: Mapping[int, BaseException]
    ) -> None:
        self.results, self.failed = list(results), dict(failed)
        place, error = next(iter(self.failed.items()))
        super().__init__(
            f"{len(self.failed)} of {len(self.results)} tasks were not sent; the first is "
            f"number {place}: {error}. The others are: do not send them again."
        )


class OutboxError(UnstuckError):
    """A message that cannot be written to the outbox, and so is not sent."""


class OutboxFull(OutboxError):
    """There are as many messages in the outbox as ``OUTBOX_LIMIT`` lets."""


class LockError(UnstuckError):
    """A lock that cannot be had or kept; ``name`` says which.

    All but the message may be left out, as whoever reads one from a result does.
    """

    def __init__(self, message: str, *, name: str = "") -> None:
        self.name = name
        super().__init__(message)


class LockBusy(LockError):
    """Somebody else has the lock; ``holder`` says who, and ``holder.since`` since when."""

    def __init__(self, message: str, *, name: str = "", holder: Any = None) -> None:
        self.holder = holder
        super().__init__(message, name=name)


class LockLost(LockError):
    """The lease of the lock was over, or somebody released it, before its holder was done:
    another may have it."""


class DeadlockDetected(LockError):
    """All who are in this wait for each other; ``cycle`` names them, one line each."""

    def __init__(
        self, message: str, *, name: str = "", cycle: Sequence[str] = ()
    ) -> None:
        self.cycle = tuple(cycle)
        super().__init__(message, name=name)


class LocksUnreachable(LockError):
    """What keeps the locks did not answer in time."""


class ReleaseError(UnstuckError):
    """A lock that cannot be taken from its holder as asked."""


class ControlError(UnstuckError):
    """What nodes were told that they cannot or did not do."""


class ReplayError(UnstuckError):
    """A dead letter that cannot be put back as asked."""


class PurgeError(UnstuckError):
    """A purge that cannot be done as asked."""


class NoSuchLetter(UnstuckError):
    """An id that fits no letter, or more than one."""


class NoApp(UnstuckError):
    """There is no Celery app to work with, or it is not ours."""


class BrokerUnreachable(UnstuckError):
    """The broker did not answer in time."""


class ProofFailed(UnstuckError):
    """`unstuck prove` could not be carried out, so nothing is proved."""
