"""The queues of the project, declared safely on RabbitMQ; when each task was sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kombu
from celery.app import amqp

from unstuck import tracing
from unstuck.configuration import MISSING, given
from unstuck.letters.message import SENT
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
    """Celery's AMQP, with our queues unless the project says what queues are to be.

    On each task is written when it was sent.
    """

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
            # Of a retry Celery passes on what its message had.
            options["headers"] = {**(options.get("headers") or {}), SENT: time.time()}
            if not tracing.is_on():
                return send(producer, name, message, *args, **options)
            with tracing.publishing(self._about(name, message, options)) as trace:
                options["headers"].update(trace)
                return send(producer, name, message, *args, **options)

        return send_task_message

    def _about(self, name: Any, message: Any, options: Any) -> tracing.Message:
        queue = options.get("queue") or options.get("routing_key") or ""
        return tracing.Message(
            task_id=message.headers.get("id") or message.properties["correlation_id"],
            task_name=str(name),
            queue=getattr(queue, "name", queue),
            attempt=(message.headers.get("retries") or 0) + 1,
            broker=tracing.broker_of(self.app),
        )


def _as(kind: type[PatientQueue], queue: kombu.Queue) -> kombu.Queue:
    return kind.of(queue) if type(queue) is kombu.Queue else queue
