"""The consumer: messages that no task takes, and giving back at shutdown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty
from typing import Any
from weakref import WeakSet

from celery import signals
from celery.exceptions import NotRegistered
from celery.worker.consumer import consumer as celery_consumer
from celery.worker.state import active_requests, requests, task_ready
from kombu.common import ignore_errors

from unstuck.core import broker
from unstuck.core.broker import LastingChannel
from unstuck.core.clock import system_clock
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.policy import Policy
from unstuck.core.verdict import Requeue, Verdict
from unstuck.worker import hooks, notes, remote
from unstuck.worker.echoes import Echoes
from unstuck.worker.laters import Laters
from unstuck.worker.outcomes import outcome_of_error
from unstuck.worker.policy import policy_of, policy_of_no_task
from unstuck.worker.queues import queue_of
from unstuck.worker.rabbit import Rabbit
from unstuck.worker.reporter import FLUSH_SECONDS, Reporter
from unstuck.worker.settle import Handover, RunFacts

COMMANDS = (remote.STACK_COMMAND,)
"""Remote control commands of ours; importing their module makes Celery know them."""

RECONNECT = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2}
"""Seconds between tries; Celery waits 2, 4, 6 … up to 30."""

AHEAD_SECONDS = 0.2
"""How long a task that was taken ahead may wait before others may have it."""

VISIBILITY_SECONDS = 3600
"""kombu's default for Redis."""

logger = logging.getLogger(__name__)


class Consumer(celery_consumer.Consumer):
    """Celery's consumer, which loses nothing that it cannot run."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: WeakSet[Any] = WeakSet()
        """Requests that no process has begun with."""
        self.reporter = Reporter(self.hostname, getattr(self.controller, "facts", None))
        self._repeated: list[Any] = []
        self._laters = Laters(self.timer)
        self._lasting: LastingChannel | None = None
        self._policies: dict[str, Policy] = {}
        self.echoes = Echoes()
        self.rabbit = Rabbit(self.app)
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

        def on_message(message: Any) -> Any:
            name = (message.headers or {}).get("task", "")
            if not isinstance(name, str):
                # Celery would look it up in a dict, and fall over what has no hash.
                return self.on_unknown_message(None, message)
            return on_task_received(message)

        return on_message

    # The connection.

    def perform_pending_operations(self) -> None:
        """Celery's hook in its loop for brokers that have no event loop."""
        if beat := getattr(self.pool, "beat", None):
            beat()
        super().perform_pending_operations()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long the broker is away; main is well meanwhile."""
        ensure = conn.ensure_connection
        beat = getattr(self.pool, "beat", None)

        def ensure_soon(*args: Any, callback: Any = None, **options: Any) -> Any:
            def called_between() -> None:
                if beat:
                    beat()
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
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError:
            # Celery 5.7.0 on Redis closes what it holds unacknowledged by an address
            # that it has thrown away, and would end here.
            logger.warning("The lost connection was not closed in order", exc_info=True)

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

    def _tags_in_hand(self) -> set[str]:
        """Of the messages that run, or that may start at any moment."""
        waiting = [request for request in self.waiting if not request.take_back()]
        in_hand = (*waiting, *active_requests)
        return {request.message.delivery_tag for request in in_hand}

    def on_ready(self) -> None:
        """Celery's callback when everything is set up, after each connection anew."""
        super().on_ready()
        self._publish_events_once()
        for entry in self._repeated:
            entry.cancel()
        repeat = self.timer.call_repeatedly
        self._repeated = [repeat(FLUSH_SECONDS, self.reporter.flush)]
        self._laters.go_on()
        self._lasting = broker.lasting(getattr(self.task_consumer, "channel", None))
        if self._lasting:
            self._take_short_tasks_ahead(self._lasting)
            return
        self.rabbit.prepare_delays(self.connection)
        if self.connection.transport.driver_type == "redis":
            self._keep_one_client()
            options = self.connection.transport_options
            timeout = options.get("visibility_timeout", VISIBILITY_SECONDS)
            self._repeated.append(repeat(timeout / 4, self._stay_in_hand))

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

    def _keep_one_client(self) -> None:
        """On Redis: use one client for a channel; kombu makes two for each message."""
        channel: Any = getattr(self.task_consumer, "channel", None)
        create = getattr(channel, "_create_client", None)
        if create is None:
            return
        clients: dict[int, Any] = {}

        def create_once(asynchronous: bool = False) -> Any:
            if asynchronous:
                return create(asynchronous=True)
            client = clients.get(id(channel.pool))
            if client is None:
                clients.clear()
                client = clients[id(channel.pool)] = create()
            return client

        channel._create_client = create_once

    def _stay_in_hand(self) -> None:
        """On Redis: renew what is in hand, which kombu gives away after a while.

        It stamps a message once, when it comes, and any worker takes it for lost when
        the visibility timeout has passed: a slow task or an ETA would run twice.
        """
        channel: Any = getattr(self.task_consumer, "channel", None)
        if channel is None or not (tags := list(channel.qos._delivered)):
            return
        try:
            with channel.conn_or_acquire() as client:
                now = time.time()
                stamps = dict.fromkeys(tags, now)
                client.zadd(channel.unacked_index_key, stamps, xx=True)
        except self.connection_errors as error:
            logger.warning("What is in hand could not be renewed: %s", error)

    # Messages that are not for any task here. Celery drops all four kinds.

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task that this worker does not know; perhaps a deploy is on its way."""
        name = message.headers.get("task") if message.headers else None
        error = NotRegistered(name or str(exc))
        outcome = outcome_of_error(Ending.UNKNOWN_TASK, error)
        handover = self._handover(message, later=self._hold)
        verdict = handover.decide(outcome)
        if not isinstance(verdict, Requeue):
            self._bury_unknown(handover, verdict, outcome, error, exc)
            return
        if handover.delivery.queue in self.rabbit.can_delay:
            handover.settle_with_delay(verdict, outcome, self._facts())
            return

        def after_the_wait() -> None:
            # Celery looks for the task before it looks at an ETA, so the message would
            # come straight back if it were queued again at once: it waits in hand.
            verdict = handover.decide(outcome)
            if isinstance(verdict, Requeue):
                at_once = Requeue(system_clock())
                handover.settle(at_once, outcome, self._facts())
            else:
                self._bury_unknown(handover, verdict, outcome, error, exc)

        wait = (verdict.at - system_clock()).total_seconds()
        handover.hold(max(wait, 0), after_the_wait)

    def _bury_unknown(
        self,
        handover: Handover,
        verdict: Verdict,
        outcome: Outcome,
        error: BaseException,
        exc: BaseException,
    ) -> None:
        self._record_failure(handover.received, error)
        handover.settle(verdict, outcome, self._facts())
        signals.task_unknown.send(
            sender=self,
            message=handover.received,
            exc=exc,
            name=handover.delivery.task_name,
            id=handover.delivery.task_id,
        )

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Something that is no task message at all."""
        self._reject(message, ValueError("Not a Celery task message"))

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task message that cannot be right."""
        self._reject(message, exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """A body that cannot be read."""
        self._reject(message, exc)

    def _reject(self, message: Any, error: BaseException) -> None:
        outcome = outcome_of_error(Ending.UNDECODABLE, error)
        handover = self._handover(message, later=self.later)
        verdict = handover.decide(outcome)
        self._record_failure(message, error)
        handover.settle(verdict, outcome, self._facts())
        signals.task_rejected.send(sender=self, message=message, exc=error)

    def _handover(self, message: Any, later: Callable[..., None]) -> Handover:
        """A message that has no request, in our hands."""
        queue = queue_of(message, self)
        delivery = notes.delivery_from(message.headers or {}, queue)
        return Handover(
            app=self.app,
            received=message,
            delivery=replace(
                delivery, unknown_since=delivery.unknown_since or system_clock()
            ),
            policy=policy_of_no_task(),
            ack=partial(message.ack_log_error, logger, self.connection_errors),
            later=later,
            connection=self.connection_number,
        )

    def _facts(self) -> RunFacts:
        return RunFacts(node=self.hostname)

    def _hold(self, seconds: float, function: Callable[[], None]) -> None:
        """Like ``later``, and let one more message in meanwhile."""
        connection = self.connection_number()

        def let_go() -> None:
            if connection == self.connection_number():
                self.qos.decrement_eventually()
            function()

        self.qos.increment_eventually()
        self.later(seconds, let_go)

    def _record_failure(self, message: Any, error: BaseException) -> None:
        """Fail the result and the canvas as far as the message can be read."""
        headers = message.headers or {}
        if not headers.get("id"):
            return
        try:
            properties = message.properties or {}
            answer = {
                name: properties.get(name) for name in ("reply_to", "correlation_id")
            }
            request = {**headers, **answer, **_embedded(message)}
            name = str(headers.get("task"))
            hooks.run(self.pool, hooks.record_unread, name, request, error)
            if self.event_dispatcher:
                self.event_dispatcher.send(
                    "task-failed", uuid=headers["id"], exception=repr(error)
                )
        except Exception:
            logger.exception("The failure of %s was not recorded", headers["id"])

    def running(self, task_id: str) -> Any:
        """The request of a task that a process has begun with."""
        request = requests.get(task_id)
        return request if request in active_requests else None

    # Shutdown.

    def stop(self) -> None:
        """Stop taking messages and give back what has not been started."""
        if self.task_consumer:
            # Or what is given back could come straight back here.
            self._hear_last_answer(self.task_consumer.channel)
            ignore_errors(self, self.task_consumer.cancel)
        # Before Celery has the pool forget it: that would look like a lost node.
        self._give_back_waiting()
        super().stop()

    def _hear_last_answer(self, channel: Any) -> None:
        """On Redis: take the message that was asked for, within a second, if one comes.

        kombu would take it when nobody listens any more, and mark it as redelivered.
        """
        take = getattr(channel, "_brpop_read", None)
        if take and not self._lasting and channel._in_poll:
            with suppress(Empty):
                ignore_errors(self, take)

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


def _embedded(message: Any) -> dict[str, Any]:
    """Callbacks, chain and chord of a message, if its body can be read."""
    try:
        embed = message.payload[2]
    except Exception:
        # It is undecodable: that is why we are here.
        return {}
    return dict(embed) if isinstance(embed, dict) else {}
