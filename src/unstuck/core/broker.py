"""What a channel may be able to do beyond kombu's, asked of the channel itself.

Our own transport for Redis can; it is an island, and neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class LastingChannel(Protocol):
    """A channel whose messages stay ours when its connection is lost.

    They are ours as long as this process has a lease, and what is said of them is kept
    until the broker has taken it, also by a channel that is closed.
    """

    publish_errors: tuple[type[Exception], ...]
    """What ``send`` raises."""

    ResponseError: type[Exception]
    """By which the broker says that it did not do it."""

    def collected(self) -> AbstractContextManager[list[Any]]:
        """What is published within, by this thread, is not sent but collected.

        Each has a ``content``, the message as JSON, and ``with_content`` for another.
        """

    def send(self, put: Any) -> None:
        """Publish one that was collected."""

    def send_all(self, puts: Sequence[Any]) -> list[Exception | None]:
        """Publish what was collected, in as few round trips as possible.

        Says for each what the broker had against it.
        """

    def census(self, queue: str) -> Any:
        """What there is of a queue: ``waiting``, ``oldest_seconds``, ``reserved`` by node
        and ``delayed``."""

    def queues_with_delayed(self) -> list[str]:
        """The queues that have messages whose time has not come."""

    def count_delayed(self, queues: Sequence[str]) -> dict[str, int]:
        """How many such messages each queue has."""

    def first_delayed(self, queue: str, most: int) -> Iterator[Any]:
        """Those of a queue that are due first, read a few at a time: each has ``queue``,
        ``due_at`` in seconds since the epoch, and ``content``, the message as JSON."""

    def delayed_with(
        self, queue: str, text: str, until: float
    ) -> tuple[Sequence[Any], bool]:
        """Those of a queue that have ``text`` in them; whether those are all that do, as
        it gives up at the instant ``until`` of ``time.monotonic()``."""

    def take_delayed(self, delayed: Any, instead: str | None = None) -> bool:
        """Take one of those away, and put another message in the queue in its place.

        As one step; ``False``, and nothing is done, if it is not there any more. Any
        error but ``ResponseError`` leaves in doubt whether it was done.
        """

    def search(self, queue: str, text: str, most: int, until: float) -> Any:
        """The messages of a queue that have ``text`` in them, and ``looked_at`` how many.

        ``found``: each has ``content``, and a ``place`` from 1 on or the ``node`` that has
        it in hand. It gives up after ``most``, and at ``until``: ``is_whole`` says so.
        """

    def keep(self, delivery_tags: Collection[str]) -> None:
        """These stay in hand when the channel closes; all others are for others."""

    def in_place_of(
        self, delivery_tag: str, *, first: bool = False
    ) -> AbstractContextManager[None]:
        """What is published on this channel within takes the place of that message.

        Both become true as one step, or neither; neither if it is no longer ours.
        ``first``: it is served before all others in its queue.
        """

    def take_ahead(self, appetite: Callable[[], int]) -> None:
        """Take as many messages beyond the prefetch count as ``appetite`` says."""

    def put_at(self, delivery_tag: str) -> float:
        """Since when that message could be read, by the clock of the broker, in seconds
        since the epoch."""

    def surplus(self) -> int:
        """How many messages beyond the prefetch count are in hand and not wanted now."""

    def is_ours(self, delivery_tag: str) -> bool:
        """Whether nobody else can have that message now, as far as can be known."""


def lasting(channel: Any) -> LastingChannel | None:
    """The channel, if it can do this."""
    return channel if is_lasting(type(channel)) else None


def is_lasting(channel_class: type) -> bool:
    """Whether channels of this class can do this."""
    return hasattr(channel_class, "in_place_of")
