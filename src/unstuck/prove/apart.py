"""How a process of the project works for a proof, apart from all that is the project's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import kombu

from unstuck import conf, profile, project
from unstuck.configuration import BROKER_OPTIONS, put
from unstuck.core import broker
from unstuck.core.errors import ProofFailed

APART: Mapping[str, Any] = {
    # Nothing of the project's may redirect, slow down or run our tasks.
    "task_always_eager": False,
    "task_annotations": None,
    "task_default_rate_limit": None,
    "task_routes": None,
    # What a killed node would leave on the broker or in the result store.
    "task_send_sent_event": False,
    "task_store_errors_even_if_ignored": False,
    "worker_direct": False,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_state_db": None,
}
"""The settings of the project that do not hold here; all others do."""

BROKERS = ("redis", "amqp")

JOB = "unstuck.prove.job"
"""The task of a proof."""

CONCURRENCY = 2
"""How many of them a node runs at once."""

EXPIRES_SECONDS = 3600
"""If even we are killed, RabbitMQ forgets the queue."""

VISIBILITY_SECONDS = 5
RESTORE_SECONDS = 100
"""How often kombu looks for what dead nodes had; before 5.7 whatever it is told."""

STOCK_VISIBILITY_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the processes of one proof have to know."""

    id: str
    home: str
    """A module of the project that has its app."""

    ledger: str

    @property
    def queue(self) -> str:
        """The queue that its tasks go to."""
        return f"unstuck.prove.{self.id}"

    @property
    def dead(self) -> str:
        """The queue that its dead letters go to."""
        return f"{self.queue}.dead"

    @property
    def unacked(self) -> tuple[str, str, str]:
        """On stock Redis: the keys in which its nodes note what they have in hand."""
        return (
            f"{self.queue}.unacked",
            f"{self.queue}.unacked_index",
            f"{self.queue}.unacked_mutex",
        )

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The inverse of ``to_json``."""
        return cls(**json.loads(text))


def set_apart(app: Any, plan: Plan) -> kombu.Queue:
    """Have the app of this process work for the plan alone; returns the queue.

    Raises ``ProofFailed`` where that cannot be.
    """
    _refuse_other_brokers(app)
    settings = project.loaded_conf(app)
    for name, value in APART.items():
        put(settings, name, value)
    if is_stock_redis(app):
        own = settings[BROKER_OPTIONS] or {}
        put(settings, BROKER_OPTIONS, {**own, **_stock_redis_options(plan)})
    app.dead_letters = plan.dead
    queue = kombu.Queue(
        plan.queue,
        # Not that of the project, and gone with the queue.
        kombu.Exchange(plan.queue, "direct", auto_delete=True),
        routing_key=plan.queue,
        expires=EXPIRES_SECONDS if _is_amqp(app) else None,
        queue_arguments=_arguments(app, settings, plan),
    )
    return app.amqp.queues.add(queue)


def _stock_redis_options(plan: Plan) -> dict[str, Any]:
    """Have kombu give back soon what dead nodes had, and only ours.

    With the names of the project, what its own workers have had in hand for longer
    than that would be given to others and run twice.
    """
    unacked, index, mutex = plan.unacked
    return {
        "unacked_key": unacked,
        "unacked_index_key": index,
        "unacked_mutex_key": mutex,
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }


def _arguments(app: Any, settings: Any, plan: Plan) -> dict[str, Any] | None:
    if not _is_amqp(app):
        return None
    # What the broker drops is a letter of ours, too.
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": plan.dead}
    kind = settings.get("task_create_missing_queue_type") or "classic"
    return dead if kind == "classic" else {**dead, "x-queue-type": kind}


def _refuse_other_brokers(app: Any) -> None:
    connection = app.connection_for_read()
    if connection.transport.driver_type not in BROKERS:
        raise ProofFailed(
            f"The broker is {connection.as_uri()}, and a proof can be done on Redis and "
            f"RabbitMQ only: unstuck+redis://, redis:// or amqp://."
        )


def _is_amqp(app: Any) -> bool:
    return bool(app.connection_for_read().transport.driver_type == "amqp")


def is_stock_redis(app: Any) -> bool:
    """Whether the broker is a Redis by kombu's own transport."""
    transport = app.connection_for_read().transport
    return transport.driver_type == "redis" and not broker.is_lasting(transport.Channel)


def your_recovery_seconds(app: Any) -> float | None:
    """On stock Redis: after what time the project's own workers get back what a dead one
    had; ``None`` on other brokers."""
    if not is_stock_redis(app):
        return None
    own = app.conf.broker_transport_options or {}
    every = own.get("unacked_restore_interval", 10)
    every *= own.get("unacked_restore_throttle", 10)
    timeout = own.get("visibility_timeout", STOCK_VISIBILITY_SECONDS)
    return float(timeout + (every if restores_as_told(app) else RESTORE_SECONDS))


def restores_as_told(app: Any) -> bool:
    """Whether kombu looks for what dead nodes had as often as its options say."""
    channel = app.connection_for_read().transport.Channel
    return hasattr(channel, "unacked_restore_throttle")


def lease_seconds(app: Any) -> float | None:
    """How long a silent node keeps what it has; ``None`` where there are no leases."""
    if is_stock_redis(app):
        return float(VISIBILITY_SECONDS)
    if profile.keeps_leases(app.conf.broker_url):
        return conf.current().lease_seconds
    return None
