"""Asking the broker, of whichever kind it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unstuck import queues
from unstuck.app import Celery
from unstuck.core.errors import BrokerUnreachable
from unstuck.doctor.ask import rabbitmq, redis
from unstuck.doctor.facts import Part, Queue
from unstuck.letters.queue import asking

Asked = tuple[dict[str, Any], dict[Part, str]]


def ask(app: Celery, names: Sequence[str], rabbitmq_api: str | None) -> Asked:
    """The server and the queues of these names.

    Raises ``BrokerUnreachable``, also of a broker that is neither Redis nor RabbitMQ.
    """
    with asking(app) as connection:
        match connection.transport.driver_type:
            case "redis":
                facts, problems = redis.ask(connection)
                return {**facts, "queues": _counted(app, names)}, problems
            case "amqp":
                return rabbitmq.ask(app, connection, names, rabbitmq_api)
            case kind:
                raise BrokerUnreachable(
                    f"a broker of the kind {kind} tells nothing of itself; Redis, Valkey "
                    f"and RabbitMQ do"
                )


def _counted(app: Celery, names: Sequence[str]) -> tuple[Queue, ...]:
    return tuple(
        Queue(
            name=each.name,
            waiting=each.waiting,
            consumers=None if "consumers" in each.untold else each.consumers,
        )
        for each in queues.count(app, names)
    )
