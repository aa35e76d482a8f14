"""What a channel is connected to, and what things are called there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from kombu.transport import redis as kombu_redis

from unstuck.transport.desk import Desk
from unstuck.transport.keys import RETURNED, Keys
from unstuck.transport.offices import office_of, plain_client
from unstuck.transport.steward import Steward


class ConnectedChannel(kombu_redis.Channel):
    """kombu's Redis channel, with our names, and clients that are kept."""

    socket_timeout = 4
    socket_connect_timeout = 2
    socket_keepalive = True
    lease_seconds = 5.0
    node: str | None = None
    predecessors: Sequence[str] = ()

    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "lease_seconds",
        "node",
        "predecessors",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._commands: Any = None
        self._one_client: Any = None
        super().__init__(*args, **kwargs)

    @cached_property
    def desk(self) -> Desk:
        """What this process has in hand."""
        return self._office[0]

    @cached_property
    def _steward(self) -> Steward:
        return self._office[1]

    @cached_property
    def _office(self) -> tuple[Desk, Steward]:
        return office_of(self)

    @property
    def has_office(self) -> bool:
        """Whether it has ever had anything in hand, or read."""
        return "_office" in vars(self)

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """The streams of each queue, the most urgent first."""
        return (RETURNED, *(str(step) for step in self.priority_steps))

    @cached_property
    def keys(self) -> Keys:
        """What things are called."""
        return Keys(self.global_keyprefix)

    def _streams_of(self, queues: Iterable[str]) -> list[str]:
        queues = list(queues)
        return [
            self.keys.stream(queue, step) for step in self.steps for queue in queues
        ]

    def _lists_of(self, queue: str) -> dict[str, str]:
        """kombu's own for this queue, each with the stream for its messages."""
        prefix = self.global_keyprefix
        return {
            prefix + self._q_for_pri(queue, step): self.keys.stream(queue, step)
            for step in self.priority_steps
        }

    def _names_of(self, queue: str) -> list[str]:
        """All that there is of a queue."""
        return [*self._streams_of([queue]), self.keys.delayed(queue)]

    @property
    def commands(self) -> Any:
        """A client that returns what the server says as it is."""
        if self._commands is None or self._commands.connection_pool is not self.pool:
            self._commands = plain_client(self.pool)
        return self._commands

    def _connparams(self, asynchronous: bool = False) -> Any:
        # The shape of some answers depends on the protocol.
        return {**super()._connparams(asynchronous=asynchronous), "protocol": 2}

    def _create_client(self, asynchronous: bool = False) -> Any:
        # kombu makes a client for each command; one is enough.
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if (
            self._one_client is None
            or self._one_client.connection_pool is not self.pool
        ):
            self._one_client = super()._create_client()
        return self._one_client
