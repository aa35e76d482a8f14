"""The exceptions of unstuck.

UnstuckError
 ├ SettingsError       a setting that cannot be used
 ├ ReplayError         a dead letter that cannot be put back as asked
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


class BrokerUnreachable(UnstuckError):
    """The broker did not answer in time."""
