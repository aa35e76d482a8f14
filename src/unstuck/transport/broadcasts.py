"""The part of a channel that broadcasts come by: kombu's pub/sub, found out when it is dead."""

from __future__ import annotations

import logging
import time
from queue import Empty
from typing import Any

from unstuck.fields import Fields
from unstuck.transport.queues import QueuesChannel

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 4.0
"""An answer that is so late will not come: the other side of the connection is gone."""

PING_SECONDS = 2.0
"""How long nothing need be heard on the connection that broadcasts come by."""


class BroadcastsChannel(QueuesChannel):
    """Connects anew when the connection for fanout exchanges is lost, or says nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._heard_at = time.monotonic()
        """When anything came by the connection for broadcasts."""

        super().__init__(*args, **kwargs)

    def listen_for_life(self) -> None:
        """Ask a connection that is silent by nature, and drop it if it does not answer."""
        subclient, now = self.subclient, time.monotonic()
        if not self._in_listen or now < self._heard_at + PING_SECONDS:
            return
        if not subclient.health_check_response_counter:
            ping = subclient.HEALTH_CHECK_MESSAGE
            subclient.connection.send_command("PING", ping, check_health=False)
            subclient.health_check_response_counter += 1
        elif now > self._heard_at + PING_SECONDS + ANSWER_SECONDS:
            logger.warning("No broadcasts come by any more; connecting anew")
            self._drop_broadcasts()

    def _drop_broadcasts(self) -> None:
        self._in_listen = None
        self._heard_at = time.monotonic()
        self.subclient.health_check_response_counter = 0
        self.subclient.connection.disconnect()

    def _receive(self) -> bool:
        """Fanout messages: connect anew when that connection was lost."""
        self._heard_at = time.monotonic()
        try:
            return bool(super()._receive())
        except self.connection_errors as error:
            logger.info(
                "The connection that broadcasts come by was lost: %(fields)s",
                Fields(error=error),
            )
            self._drop_broadcasts()
            raise Empty from None
