"""What a span says of the message that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SYSTEMS = {"amqp": "rabbitmq", "amqps": "rabbitmq", "pyamqp": "rabbitmq"}
"""The names of the semantic conventions, by the scheme of a broker's URL."""


def broker_of(app: Any) -> str:
    """The URL of an app's broker, the first of several."""
    url = app.conf.broker_url or ""
    return str(next(iter(url), "") if isinstance(url, (list, tuple)) else url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a task."""

    task_id: str
    task_name: str
    queue: str = ""
    attempt: int = 1
    """Runs of this task, this one counted."""

    broker: str = ""
    """The URL of the broker; its scheme is told, no more."""

    def attributes(self, operation: str, kind: str) -> Mapping[str, str | int]:
        """As the semantic conventions for messaging have them, and for Celery."""
        found: dict[str, str | int] = {
            "messaging.system": self._system,
            "messaging.operation.name": operation,
            "messaging.operation.type": kind,
            "messaging.destination.name": self.queue,
            "messaging.message.id": self.task_id,
            "celery.task_name": self.task_name,
            "unstuck.attempt": self.attempt,
        }
        return {name: value for name, value in found.items() if value != ""}

    @property
    def _system(self) -> str:
        scheme, found, _ = self.broker.partition("://")
        scheme = scheme.removeprefix("unstuck+") if found else ""
        return SYSTEMS.get(scheme, scheme)
