"""What a worker has to know of its queues on RabbitMQ, and to set up beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.exceptions import OperationalError

from unstuck.core.clock import system_clock
from unstuck.fields import Fields
from unstuck.letters import queue
from unstuck.letters.message import DEATH_HEADERS, DEATHS, StoredMessage
from unstuck.profile import PUBLISH_SECONDS
from unstuck.rabbit import delays, server
from unstuck.rabbit.queues import (
    PatientQueue,
    arguments_of,
    dead_letter_queue,
    differences,
    is_quorum,
)
from unstuck.worker.queues import queue_of

logger = logging.getLogger(__name__)

HELP = "docs/rabbitmq.md"


class Rabbit:
    """The RabbitMQ that a consumer is connected to; does nothing on any other broker."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._told: set[str] = set()
        self.can_delay: frozenset[str] = frozenset()
        """The queues whose messages can wait for their time on the broker."""

    def look_at_queues(self, connection: Any) -> None:
        """Declare what is consumed, say what is not as we would have it.

        Celery asks next how to limit what comes in. Where it may be from a quorum queue,
        that cannot be one limit for all queues: RabbitMQ would close the connection.
        """
        self.can_delay = frozenset()
        if connection.transport.driver_type != "amqp":
            return
        channel = connection.default_channel
        if not server.has_quorum_queues(channel):
            return
        self._look_at_letters(connection)
        consumed = self._app.amqp.queues.consume_from.values()
        found = [self._look_at(channel, each) for each in consumed]
        if any(is_quorum(arguments) for arguments in found):
            connection.transport.qos_semantics_matches_spec = lambda _: True

    def prepare_delays(self, connection: Any) -> None:
        """Let messages whose time has not come wait on the broker, if it can do that."""
        if connection.transport.driver_type != "amqp" or not self._app.delays_on_broker:
            return
        if not server.has_quorum_queues(connection.default_channel):
            return
        consumed = self._app.amqp.queues.consume_from.values()
        kind = self._app.conf.broker_native_delayed_delivery_queue_type
        try:
            with self._app.connection_for_write() as other:
                other.ensure_connection(max_retries=1, timeout=PUBLISH_SECONDS)
                self.can_delay = delays.prepare(other, consumed, kind)
        except (
            OperationalError,
            *connection.connection_errors,
            *connection.channel_errors,
        ) as error:
            logger.warning(
                "Messages with an ETA wait in this worker, not on RabbitMQ: %(fields)s",
                Fields(error=server.words_of(error)),
            )

    def puts_off(self, consumer: Any, message: Any) -> bool:
        """Have a message whose time has not come wait on the broker; says if it does."""
        eta = message.headers.get("eta")
        if not (eta and self.can_delay):
            return False
        seconds = _seconds_until(eta)
        name = queue_of(message, consumer)
        if seconds < 1 or name not in self.can_delay:
            return False
        if message.headers.get("id") in consumer.controller.state.revoked:
            return False
        try:
            stored = StoredMessage.of(message, name)
            queue.put_back(self._app, stored, wait_seconds=seconds)
        except Exception:
            # It is in hand, and waits here as Celery has it wait.
            logger.warning("A message was not put off on RabbitMQ", exc_info=True)
            return False
        message.ack_log_error(logger, consumer.connection_errors)
        return True

    def _look_at_letters(self, connection: Any) -> None:
        """What the broker drops needs their queue; what we bury would say so itself."""
        name = queue.name_for(self._app)
        with connection.channel() as channel:
            try:
                self._look_at(channel, dead_letter_queue(name))
            except connection.channel_errors as error:
                logger.warning(
                    "The queue of letters cannot be declared: %(fields)s",
                    Fields(error=server.words_of(error)),
                )

    def _look_at(self, channel: Any, each: Any) -> Mapping[str, Any] | None:
        each(channel).declare()
        found = arguments_of(channel, each)
        if isinstance(each, PatientQueue) and each.name not in self._told:
            self._told.add(each.name)
            _tell(each, each.wanted(channel), found)
        return found


def forget_deaths(message: Any) -> None:
    """Take off what the ladder of delays has written on a message.

    Celery gives a retry the headers of the attempt before: RabbitMQ would drop it as
    one that goes round in circles.
    """
    if DEATHS in message.headers:
        for name in DEATH_HEADERS:
            message.headers.pop(name, None)


def _tell(
    each: PatientQueue, wanted: Mapping[str, Any], found: Mapping[str, Any] | None
) -> None:
    differing = differences(wanted, found)
    if not differing:
        return
    kind = "classic" if found is not None and not is_quorum(found) else "quorum"
    logger.warning(
        "A queue is there already with other arguments than a new one would get. It is "
        "used as it is: %(fields)s",
        Fields(
            queue=each.name,
            kind=kind if found is not None else "differing",
            differing=", ".join(
                f"{name}: {there!r}, not {want!r}"
                for name, (want, there) in differing.items()
            ),
            see=HELP,
        ),
    )


def _seconds_until(eta: Any) -> int:
    """Whole seconds; what is no time is for Celery to refuse."""
    try:
        instant: datetime = maybe_make_aware(maybe_iso8601(eta), UTC)
        return int((instant - system_clock()).total_seconds())
    except (TypeError, ValueError, AttributeError, OverflowError):
        return 0
