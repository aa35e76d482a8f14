"""The exceptions of unstuck.

UnstuckError
 ├ SettingsError       a setting that cannot be used
 ├ NoApp               no Celery app to work with, or none of ours
 ├ NoSuchLetter        an id that fits no letter, or more than one
 ├ ReplayError         a dead letter that cannot be put back as asked
 ├ PurgeError          dead letters that cannot be deleted as asked
 └ BrokerUnreachable   the broker did not answer in time
"""

from __future__ import annotations

from collections.abc import Sequence


class UnstuckError(Exception):
    """Whatever unstuck itself raises."""


class SettingsError(UnstuckError):
    """Settings that cannot be used; ``problems`` names each, its value and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


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
