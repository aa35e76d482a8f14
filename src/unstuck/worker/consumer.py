"""The consumer: it keeps its connection, and loses nothing that it cannot run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from celery.worker.consumer import consumer as celery_consumer
from celery.worker.state import active_requests, requests, task_ready
from kombu.common import ignore_errors

from unstuck import conf
from unstuck.core import broker
from unstuck.core.broker import LastingChannel
from unstuck.core.policy import Policy
from unstuck.pool.board import MAIN
from unstuck.pool.leases import Leases
from unstuck.worker import lists, remote
from unstuck.worker.echoes import Echoes
from unstuck.worker.laters import Laters
from unstuck.worker.policy import policy_of
from unstuck.worker.rabbit import Rabbit
from unstuck.worker.reporter import FLUSH_SECONDS, Reporter
from unstuck.worker.turned_away import TurnedAway

COMMANDS = remote.COMMANDS
"""Remote control commands of ours; importing their module makes Celery know them."""

RECONNECT = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2}
"""Seconds between tries; Celery waits 2, 4, 6 … up to 30."""

AHEAD_SECONDS = 0.2
"""How long a task that was taken ahead may wait before others may have it."""

BEAT_SECONDS = 1

logger = logging.getLogger(__name__)


STEPS = {"celery.worker.consumer.control:Control": "unstuck.worker.control:Control"}
"""Which of Celery's steps of a consumer are ours."""


class Consumer(celery_consumer.Consumer):
    """Celery's consumer, which loses nothing that it cannot run."""

    class Blueprint(celery_consumer.Consumer.Blueprint):
        """Celery's steps, but for some."""

        default_steps = [
            STEPS.get(step, step)
            for step in celery_consumer.Consumer.Blueprint.default_steps
        ]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: WeakSet[Any] = WeakSet()
        """Requests that no process has begun with."""
        board = getattr(self.controller, "board", None)
        self.reporter = Reporter(
            self.hostname,
            getattr(self.controller, "facts", None),
            board.tally if board else None,
            each=conf.current().record_successes,
        )
        self.taken = 0
        """How many messages have come in."""

        self._came: WeakSet[Any] = WeakSet()
        self._repeated: list[Any] = []
        self._must_restart = ""
        self._consumed_by: Any = None
        self._laters = Laters(self.timer, self.beat)
        self._lasting: LastingChannel | None = None
        self._policies: dict[str, Policy] = {}
        self.echoes = Echoes()
        self.leases = Leases()
        """Releases locks of what ends without a process of its own."""

        self.rabbit = Rabbit(self.app)
        self._turned_away = TurnedAway(self)
        self.app.consumer_in_charge = self

    def update_strategies(self) -> None:
        """Celery's hook, on each connection anew."""
        super().update_strategies()
        self._policies.clear()
        # Right before Celery begins to consume.
        self.rabbit.look_at_queues(self.connection)

    def policy_of(self, task: Any) -> Policy:
        """What is allowed to the messages of a task."""
        policy = self._policies.get(task.name)
        if policy is None:
            policy = self._policies[task.name] = policy_of(task)
        return policy

    def connection_number(self) -> int:
        """Counts the connections on which a message of the one before is not ours."""
        return 0 if self._lasting else int(self.restart_count)

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call ``function`` after so many seconds, from the worker's timer."""
        self._laters.add(seconds, function)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """What is called with each message."""
        on_task_received = super().create_task_handler(*args, **options)
        # Elsewhere the channel counts.
        counts = self.connection.transport.driver_type == "amqp"
        came = self._came = WeakSet()

        def on_message(message: Any) -> Any:
            self.taken += 1
            if counts:
                came.add(message)
            name = (message.headers or {}).get("task", "")
            if not isinstance(name, str):
                # Celery would look it up in a dict, and fall over what has no hash.
                return self.on_unknown_message(None, message)
            return on_task_received(message)

        return on_message

    @property
    def consumes(self) -> bool:
        """Whether everything is set up on the connection that there is."""
        connection = self.connection
        return connection is not None and connection is self._consumed_by

    @property
    def in_hand(self) -> int:
        """How many messages of RabbitMQ were not acknowledged, on this connection.

        Whatever for: its time, a rate limit, a verdict that could not be carried out.
        """
        channel = self.task_consumer.channel
        return sum(
            message.channel is channel and not message.acknowledged
            for message in self._came
        )

    # The connection.

    def beat(self) -> None:
        """Say that main's loop turns."""
        if board := getattr(self.controller, "board", None):
            board.row(MAIN).beat()

    def restart_soon(self, why: str) -> None:
        """Connect anew, as after a lost connection. Called from any thread."""
        self._must_restart = why
        if self.hub:
            self.hub.call_soon(self._restart_if_asked)

    def _restart_if_asked(self) -> None:
        why, self._must_restart = self._must_restart, ""
        if why:
            raise ConnectionResetError(f"The consumer starts anew: {why}")

    def perform_pending_operations(self) -> None:
        """Celery's hook in its loop for brokers that have no event loop."""
        self.beat()
        super().perform_pending_operations()
        self._restart_if_asked()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long the broker is away; main is well meanwhile."""
        ensure = conn.ensure_connection

        def ensure_soon(*args: Any, callback: Any = None, **options: Any) -> Any:
            def called_between() -> None:
                self.beat()
                if callback:
                    callback()

            return ensure(*args, callback=called_between, **{**options, **RECONNECT})

        conn.ensure_connection = ensure_soon
        try:
            return super().ensure_connected(conn)
        finally:
            del conn.ensure_connection

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Let go of a lost connection."""
        self._let_go_of_what_has_not_begun()
        if self._lasting:
            self._lasting.keep(self._tags_in_hand())
        else:
            self.echoes.connection_lost()
        taken = self.taken
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError:
            # Celery 5.7.0 on Redis closes what it holds unacknowledged by an address
            # that it has thrown away, and would end here.
            logger.warning("The lost connection was not closed in order", exc_info=True)
        finally:
            # What kombu still reads while it closes is given back: nobody hears better.
            self.taken = taken
            if not self._lasting:
                self._forget_what_waits()

    def _let_go_of_what_has_not_begun(self) -> None:
        """Celery has the pool forget it next, and nobody would ever run it.

        Some of it counts as running, because its child was free. Where messages stay in
        hand all of it goes back, also what came by a connection before this one;
        elsewhere the broker takes it back, and its redelivery must not be adopted.
        """
        if recall := getattr(self.pool, "recall", None):
            recall()
        for request in [*self.waiting, *active_requests]:
            if not request.was_recalled:
                continue
            if self._lasting:
                request.give_back()
            else:
                task_ready(request)

    def _forget_what_waits(self) -> None:
        """The broker takes it back, so it must not be given back once more at the end.

        Its requests may live on: Celery 5.7 keeps one with an ETA until then.
        """
        for request in list(self.waiting):
            if request.take_back():
                self.waiting.discard(request)

    def _tags_in_hand(self) -> set[str]:
        """Of the messages that run, or that may start at any moment."""
        waiting = [request for request in self.waiting if not request.take_back()]
        in_hand = (*waiting, *active_requests)
        return {request.message.delivery_tag for request in in_hand}

    def on_ready(self) -> None:
        """Celery's callback when everything is set up, after each connection anew."""
        super().on_ready()
        self._consumed_by = self.connection
        self._publish_events_once()
        for entry in self._repeated:
            entry.cancel()
        repeat = self.timer.call_repeatedly
        self._repeated = [repeat(FLUSH_SECONDS, self._report)]
        if self.hub and not hasattr(self.pool, "beat"):
            self._repeated.append(repeat(BEAT_SECONDS, self.beat))
        self._laters.go_on()
        channel = getattr(self.task_consumer, "channel", None)
        self._lasting = broker.lasting(channel)
        if self._lasting:
            self._take_short_tasks_ahead(self._lasting)
            return
        self.rabbit.prepare_delays(self.connection)
        if self.connection.transport.driver_type == "redis":
            lists.keep_one_client(channel)
            every = lists.visibility_seconds(self.connection) / 4
            self._repeated.append(repeat(every, self._stay_in_hand))

    def _stay_in_hand(self) -> None:
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:
            lists.stay_in_hand(channel, self.connection_errors)

    def _take_short_tasks_ahead(self, channel: LastingChannel) -> None:
        """Take more than the prefetch count while all tasks are over at once.

        Only from a broker that takes back, as one step, what waits for longer than that.
        """
        appetite = getattr(self.pool, "appetite", None)
        if appetite:
            channel.take_ahead(appetite)
            every = self.timer.call_repeatedly
            self._repeated.append(every(AHEAD_SECONDS, self._give_back_surplus))

    def _give_back_surplus(self) -> None:
        """Let others have what was taken ahead and does not start after all."""
        assert self._lasting is not None  # noqa: S101 - what calls this is set up for it
        surplus = self._lasting.surplus()
        for request in list(self.waiting) if surplus > 0 else ():
            if surplus > 0 and request.is_in_pool and request.take_back():
                request.give_back()
                surplus -= 1

    def _publish_events_once(self) -> None:
        """Try once to send a heartbeat; Celery's tries never end while a broker hangs.

        A broker that does not take it is a lost connection, and handled as one.
        """
        dispatcher = self.event_dispatcher
        if dispatcher is None:
            return
        send = type(dispatcher).send

        def send_once(*args: Any, **options: Any) -> Any:
            return send(dispatcher, *args, **{**options, "retry": False})

        dispatcher.send = send_once

    # Messages that are not for any task here. Celery drops all four kinds.

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task that this worker does not know; perhaps a deploy is on its way."""
        self._turned_away.unknown(message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Something that is no task message at all."""
        self._turned_away.reject(message, ValueError("Not a Celery task message"))

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task message that cannot be right."""
        self._turned_away.reject(message, exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """A body that cannot be read."""
        self._turned_away.reject(message, exc)

    def running(self, task_id: str) -> Any:
        """The request of a task that a process has begun with."""
        request = requests.get(task_id)
        return request if request in active_requests else None

    # Shutdown.

    def stop(self) -> None:
        """Stop taking messages and give back what has not been started."""
        if self.task_consumer:
            # Or what is given back could come straight back here.
            if not self._lasting:
                with ignore_errors(self):
                    lists.hear_last_answer(self.task_consumer.channel)
            ignore_errors(self, self.task_consumer.cancel)
        # Before Celery has the pool forget it: that would look like a lost node.
        self._give_back_waiting()
        super().stop()

    def _report(self) -> None:
        self.reporter.flush()
        self.reporter.running(tuple(active_requests))

    def give_back_running(self) -> None:
        """Give back what runs, and what still waits; the pool is about to end it."""
        self._give_back_waiting()
        for request in list(active_requests):
            request.hand_back()

    def _give_back_waiting(self) -> None:
        for request in list(self.waiting):
            if request.take_back():
                request.hand_back()

    def shutdown(self) -> None:
        """Celery's last call, when the pool has stopped."""
        self.reporter.flush()
        self.leases.close()
        super().shutdown()

    def cancel_active_requests(self) -> None:
        """Stop what runs at the end of the soft shutdown, and give it back."""
        unfinished = [
            request for request in active_requests if not request.acknowledged
        ]
        super().cancel_active_requests()
        for request in unfinished:
            if request._already_cancelled:
                request.hand_back()
