"""The queues of the project, declared safely on RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu
from celery.app import amqp

from unstuck.configuration import MISSING, given
from unstuck.rabbit.queues import PatientQueue, SafeQueue

SAID_BY = ("task_default_queue_type", "task_create_missing_queue_type")
"""A project that sets one of these has decided itself what its queues are."""


class Queues(amqp.Queues):
    """Celery's queues by name; those that are there are used as they are."""

    kind: type[PatientQueue] = PatientQueue

    def _add(self, queue: kombu.Queue) -> kombu.Queue:
        return super()._add(_as(self.kind, queue))


class SafeQueues(Queues):
    """And those that are not there are made safe."""

    kind = SafeQueue


class AMQP(amqp.AMQP):
    """Celery's AMQP, with our queues unless the project says what queues are to be."""

    @property
    def queues_cls(self) -> type[Queues]:
        """The class of ``app.amqp.queues``."""
        said = any(given(self.app.conf, name) is not MISSING for name in SAID_BY)
        return Queues if said else SafeQueues

    def _create_task_sender(self) -> Callable[..., Any]:
        send: Callable[..., Any] = super()._create_task_sender()
        kind = self.queues_cls.kind

        def send_task_message(
            producer: Any, name: Any, message: Any, *args: Any, **options: Any
        ) -> Any:
            queue = options.get("queue")
            if isinstance(queue, kombu.Queue):
                # Or it would be declared in another way than by its workers.
                options["queue"] = _as(kind, queue)
            return send(producer, name, message, *args, **options)

        return send_task_message


def _as(kind: type[PatientQueue], queue: kombu.Queue) -> kombu.Queue:
    return kind.of(queue) if type(queue) is kombu.Queue else queue
