"""Asking the broker how many messages wait, on a connection of one's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from kombu.exceptions import OperationalError

from unstuck import profile

ANSWER_SECONDS = 4.0
"""How long a broker may take to connect, and to answer."""


class Census:
    """Counts messages from a thread beside main's event loop."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None
        self._channel: Any = None

    @property
    def may_ask(self) -> bool:
        """Whether this is a broker that can be asked for nothing, and within bounds."""
        return bool(self._bounds)

    def waiting_in(self, queues: Iterable[str]) -> dict[str, int] | None:
        """How many wait in each of these; ``None`` when the broker does not answer.

        A queue that is not there has none.
        """
        names = list(queues)
        was_open = self._connection is not None
        counted = self._try_to_count(names)
        if counted is None and was_open:
            # Perhaps somebody has closed a connection that was idle for long.
            counted = self._try_to_count(names)
        return counted

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                # Not closed in order: it is lost, which is why.
                connection.collect()

    @property
    def _bounds(self) -> dict[str, float]:
        """Whatever the project says of its own connections: this one waits for nobody."""
        options = profile.transport_options(self._app.conf.broker_read_url)
        names = [name for name in options if name.endswith("timeout")]
        return dict.fromkeys(names, ANSWER_SECONDS)

    def _try_to_count(self, names: list[str]) -> dict[str, int] | None:
        if self._connection is None:
            self._connection = self._app.connection_for_read(
                connect_timeout=ANSWER_SECONDS, transport_options=self._bounds
            )
        connection = self._connection
        lost = (OperationalError, OSError, *connection.connection_errors)
        try:
            connection.ensure_connection(
                # Each of the hosts that there are, once.
                max_retries=max(0, len(connection.alt) - 1),
                interval_start=0,
                interval_max=0.1,
                timeout=2 * ANSWER_SECONDS,
            )
            return {name: self._count(name) for name in names}
        except lost:
            self.close()
            return None

    def _count(self, name: str) -> int:
        if self._channel is None:
            self._channel = self._connection.channel()
        try:
            declared = self._channel.queue_declare(name, passive=True)
        except self._connection.channel_errors:
            # On RabbitMQ it has cost the channel.
            if not getattr(self._channel, "is_open", True):
                self._channel = None
            return 0
        return int(declared.message_count)
