"""How many messages a channel may have in hand, and which they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.transport import virtual

UNLIMITED = 100
"""How many to ask for at once when nothing limits it."""


class QoS(virtual.QoS):
    """kombu's interface; what is in hand is on the desk."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        # Not kombu's own: it has what is left restored by a finalizer, at exit.
        self.channel = channel
        self.prefetch_count = prefetch_count or 0
        self.appetite: Callable[[], int] = lambda: 0
        """How many messages more, beyond the count, can be dealt with at once."""

        self._delivered: dict[str, Any] = {}

    @property
    def in_hand(self) -> int:
        """How many messages are, those of channels before this one too."""
        return len(self._delivered) + len(self.channel.desk.kept)

    @property
    def room(self) -> int:
        """How many messages may come in."""
        if "can_consume" in vars(self):
            # Celery's worker_disable_prefetch looks anew before each message.
            return 1
        if not self.prefetch_count:
            return UNLIMITED
        return max(int(self.prefetch_count) - self.in_hand, self.appetite())

    def can_consume(self) -> bool:
        """Whether one more message may come in."""
        in_hand = self.in_hand
        if not self.prefetch_count or in_hand < self.prefetch_count:
            return True
        # Beyond the count it pays to ask for many at once.
        return self.appetite() >= in_hand

    def can_consume_max_estimate(self) -> int | None:
        """How many may come in at once."""
        return max(0, self.room) if self.prefetch_count else None

    def append(self, message: Any, delivery_tag: str) -> None:
        """A message is in hand."""
        self._delivered[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        """The message in hand by this tag."""
        return self._delivered[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        """It has come to its end."""
        self._delivered.pop(delivery_tag, None)
        self.channel.desk.ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """It has come to its end, or others may have it."""
        if not requeue:
            self.ack(delivery_tag)
            return
        self._delivered.pop(delivery_tag, None)
        self.channel.desk.give_back(delivery_tag)

    def release(self, delivery_tag: str) -> None:
        """It is no longer in hand; whoever calls this sees to the rest."""
        self._delivered.pop(delivery_tag, None)

    def restore_unacked(self) -> list[Any]:
        """Let others have all that is in hand."""
        while self._delivered:
            tag, _ = self._delivered.popitem()
            self.channel.desk.give_back(tag)
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The channel closes: what nobody keeps is for others."""
        desk = self.channel.desk
        for tag in list(self._delivered):
            if tag in self.channel.kept:
                desk.kept.add(tag)
                del self._delivered[tag]
        self.restore_unacked()
