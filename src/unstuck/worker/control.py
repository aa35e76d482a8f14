"""Remote control, which a broker may refuse for a while after a connection was lost."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import control

from unstuck.fields import Fields

RESOURCE_LOCKED = 405
AGAIN_SECONDS = 5

logger = logging.getLogger(__name__)


class Control(control.Control):
    """Celery's step, which does not keep the consumer from consuming.

    The queue that a worker is controlled by belongs to one connection alone. RabbitMQ
    may not have noticed for a minute that the last one is lost; Celery ends then.
    """

    def __init__(self, c: Any, **options: Any) -> None:
        super().__init__(c, **options)
        # Celery sets it on the instance.
        self.start = self._start

    def _start(self, c: Any) -> None:
        try:
            self.box.start(c)
        except c.channel_errors as error:
            if getattr(error, "reply_code", 0) != RESOURCE_LOCKED:
                raise
            logger.warning(
                "The broker takes the last connection of this worker for alive; remote "
                "control is tried again: %(fields)s",
                Fields(seconds=AGAIN_SECONDS, error=error),
            )
            c.timer.call_after(AGAIN_SECONDS, self._start_again, (c, c.connection))

    def _start_again(self, c: Any, connection: Any) -> None:
        if c.connection is connection:
            self._start(c)
