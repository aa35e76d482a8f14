"""The queues of the project, declared safely on RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu
from celery.app import amqp

from unstuck.configuration import MISSING, given
from unstuck.rabbit.queues import SafeQueue

SAID_BY = ("task_default_queue_type", "task_create_missing_queue_type")
"""A project that sets one of these has decided itself what its queues are."""


class Queues(amqp.Queues):
    """Celery's queues by name, each one declared safely."""

    def _add(self, queue: kombu.Queue) -> kombu.Queue:
        return super()._add(_safe(queue))


class AMQP(amqp.AMQP):
    """Celery's AMQP, with our queues unless the project says what queues are to be."""

    @property
    def queues_cls(self) -> type[amqp.Queues]:
        """The class of ``app.amqp.queues``."""
        return amqp.Queues if self._is_said else Queues

    @property
    def _is_said(self) -> bool:
        return any(given(self.app.conf, name) is not MISSING for name in SAID_BY)

    def _create_task_sender(self) -> Callable[..., Any]:
        send: Callable[..., Any] = super()._create_task_sender()
        if self._is_said:
            return send

        def send_task_message(
            producer: Any, name: Any, message: Any, *args: Any, **options: Any
        ) -> Any:
            queue = options.get("queue")
            if isinstance(queue, kombu.Queue):
                # Or it would be declared in another way than by its workers.
                options["queue"] = _safe(queue)
            return send(producer, name, message, *args, **options)

        return send_task_message


def _safe(queue: kombu.Queue) -> kombu.Queue:
    return SafeQueue.of(queue) if type(queue) is kombu.Queue else queue
