"""Celery apps as projects have them, on a broker in memory, current for nobody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from unstuck import Celery


def project(
    broker_url: Any = "memory://", namespace: str | None = "CELERY", **settings: Any
) -> Celery:
    """An app of ours that is configured from an object, as Django's settings are.

    With a namespace the settings are told by their lower-case Celery names all the same.
    """
    app = Celery("shop", set_as_current=False)
    named = {"broker_url": broker_url, **settings}
    if namespace:
        named = {f"{namespace}_{name.upper()}": said for name, said in named.items()}
    app.config_from_object(SimpleNamespace(**named), namespace=namespace)
    return app


def take(app: Celery, queue: str = "celery") -> Any:
    """The next message in a queue of the broker in memory, which must be there."""
    with app.connection_for_read() as connection:
        waiting = connection.SimpleQueue(queue)
        message = waiting.get(block=False)
        message.ack()
        waiting.close()
    return message


def empty(app: Celery, *queues: str) -> None:
    """Leave nothing behind: the broker in memory is one for the whole process."""
    with app.connection_for_read() as connection:
        for queue in queues or ("celery",):
            waiting = connection.SimpleQueue(queue)
            waiting.clear()
            waiting.close()
