"""What a channel may be able to do beyond kombu's, asked of the channel itself.

Our own transport for Redis can; it is an island, and neither imports the other.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any, Protocol


class LastingChannel(Protocol):
    """A channel whose messages stay ours when its connection is lost.

    They are ours as long as this process has a lease, and what is said of them is kept
    until the broker has taken it, also by a channel that is closed.
    """

    def keep(self, delivery_tags: Collection[str]) -> None:
        """These stay in hand when the channel closes; all others are for others."""

    def in_place_of(self, delivery_tag: str) -> AbstractContextManager[None]:
        """What is published on this channel within takes the place of that message.

        Both become true as one step, or neither; neither if it is no longer ours.
        """

    def is_ours(self, delivery_tag: str) -> bool:
        """Whether nobody else can have that message now, as far as can be known."""


def lasting(channel: Any) -> LastingChannel | None:
    """The channel, if it can do this."""
    return channel if is_lasting(type(channel)) else None


def is_lasting(channel_class: type) -> bool:
    """Whether channels of this class can do this."""
    return hasattr(channel_class, "in_place_of")
