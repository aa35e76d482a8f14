"""Carry a verdict out: write first, acknowledge last, once per delivery."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import kombu

from unstuck import tracing
from unstuck.core import broker
from unstuck.core.clock import system_clock
from unstuck.core.decide import decide
from unstuck.core.delivery import Delivery
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.policy import Policy
from unstuck.core.verdict import Ack, Bury, Reason, Requeue, Retry, Verdict
from unstuck.fields import Fields
from unstuck.letters import queue
from unstuck.letters.letter import Letter
from unstuck.letters.message import StoredMessage
from unstuck.worker import notes

logger = logging.getLogger(__name__)

TRY_AGAIN_SECONDS = 5
"""How soon a verdict that the broker did not take is carried out again."""


def nobody(*_: object, **__: object) -> None:
    """For what need not be told to anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What was seen of the process that ran the task."""

    node: str = ""
    pid: int | None = None
    started_at: datetime | None = None
    waited_seconds: float | None = None
    runtime_seconds: float | None = None
    rss_bytes: int | None = None
    rss_growth_bytes: int | None = None
    cpu_seconds: float | None = None
    child_age_seconds: float | None = None
    interrupted: bool = False
    """Whether its soft limit was raised in it."""


@dataclass(slots=True, kw_only=True)
class Handover:
    """One delivery in our hands, with what it takes to settle it."""

    app: Any
    received: kombu.Message
    delivery: Delivery
    policy: Policy
    ack: Callable[[], object]
    """Acknowledges the message on the broker."""

    later: Callable[[float, Callable[[], None]], object]
    """Calls a function after so many seconds."""

    connection: Callable[[], int]
    """Tells which connection to the broker is the current one, by a number."""

    retry: Callable[[Retry, Any], None] | None = None
    """Publishes the next attempt, with a producer or ``None`` for any; only what has a
    task can be retried."""

    settled: Callable[..., None] = nobody
    """Told of a delivery that has come to its end, and of how."""

    waits_on_broker: bool = field(default=False, init=False)
    """Whether what is queued again for later waits on the broker, and not where it goes."""

    received_on: int = field(init=False)
    """The connection that the message came in on, and can be acknowledged on."""

    reports: int = field(default=0, init=False)
    """How often an ending was reported; Celery reports a hard limit twice."""

    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.received_on = self.connection()

    def adopt(self, received: kombu.Message) -> None:
        """Go on with a redelivery of the same message, on the current connection."""
        self.received = received
        self.received_on = self.connection()

    def verdict_on(self, outcome: Outcome) -> Verdict | None:
        """What becomes of the message; ``None`` for an ending reported again."""
        with self._lock:  # In a pool of threads two of them may report at once.
            self.reports += 1
            again = self.reports > 1
        if again:
            logger.debug(
                "Task %(task)s has ended once more: %(fields)s",
                about(self.delivery, ending=outcome.ending),
            )
            return None
        return self.decide(outcome)

    def decide(self, outcome: Outcome) -> Verdict:
        """What becomes of the message now, said in the log as well."""
        verdict = decide(outcome, self.delivery, self.policy, system_clock())
        _log(self.delivery, outcome, verdict)
        return verdict

    def settle(self, verdict: Verdict, outcome: Outcome, facts: RunFacts) -> None:
        """Carry the verdict out; again and again while the broker does not take it."""
        try:
            if not isinstance(verdict, Ack):
                with self._one_step(verdict) as producer:
                    self._write(verdict, outcome, facts, producer)
        except Exception:
            # Whatever the broker has against it, the message stays unacknowledged:
            # it is ours, or the broker's again when this process dies.
            logger.exception(
                "Task %(task)s could not be settled, which is tried again: %(fields)s",
                about(self.delivery, verdict=verdict, seconds=TRY_AGAIN_SECONDS),
            )
            self.hold(TRY_AGAIN_SECONDS, lambda: self.settle(verdict, outcome, facts))
        else:
            self.ack()
            # Let go of who gave us these: it holds us, too, and would wait for the
            # garbage collector.
            self.ack = self.retry = nobody
            in_time = self.received_on == self.connection()
            self.settled(self.delivery, verdict, in_time=in_time)

    def settle_with_delay(
        self, verdict: Requeue, outcome: Outcome, facts: RunFacts
    ) -> None:
        """Queue the message again by way of a broker that keeps it until then.

        Its ETA stays its own: who gets it does not look at that first.
        """
        self.waits_on_broker = True
        self.settle(verdict, outcome, facts)

    @contextmanager
    def _one_step(self, verdict: Verdict) -> Iterator[Any]:
        """Where the broker can do it: what is published within settles the message.

        Gives the producer for that; ``None`` where the two are two steps.
        """
        channel = broker.lasting(self.received.channel)
        if channel is None:
            yield None
            return
        again = isinstance(verdict, Requeue)
        with channel.in_place_of(self.received.delivery_tag, first=again):
            yield kombu.Producer(channel)

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can have the message now, as far as can be known."""
        channel = broker.lasting(self.received.channel)
        return channel is None or channel.is_ours(self.received.delivery_tag)

    def hold(self, seconds: float, then: Callable[[], object]) -> None:
        """Keep the message in hand for a while, and go on if it is still ours."""

        def go_on() -> None:
            # A message of a lost connection is the broker's again, and on its way
            # to somebody: settling it here as well would double it.
            if self.received_on == self.connection():
                then()

        self.later(seconds, go_on)

    def _write(
        self,
        verdict: Retry | Requeue | Bury,
        outcome: Outcome,
        facts: RunFacts,
        producer: Any,
    ) -> None:
        now = system_clock()
        match verdict:
            case Retry():
                if self.retry is None:
                    raise TypeError(f"{self.delivery} has no task to retry")
                self.retry(verdict, producer)
            case Requeue(at):
                keep = self.policy.max_strikes
                changed = notes.after(self.delivery, outcome, now, keep)
                message = self._stored().with_headers(**changed)
                if self.waits_on_broker:
                    wait = max(math.ceil((at - now).total_seconds()), 0)
                    queue.put_back(self.app, message, wait_seconds=wait)
                    return
                not_before = at if at > now else None
                queue.put_back(
                    self.app, message, not_before=not_before, producer=producer
                )
            case Bury(reason):
                letter = self._letter(reason, outcome, facts, now)
                headers = self.received.headers or {}
                with tracing.burying(self.about, headers, reason):
                    queue.bury(self.app, letter, producer=producer)

    @property
    def about(self) -> tracing.Message:
        """What spans say of the message."""
        return tracing.Message(
            task_id=self.delivery.task_id,
            task_name=self.delivery.task_name,
            queue=self.delivery.queue,
            attempt=self.delivery.attempt + 1,
            broker=tracing.broker_of(self.app),
        )

    def _stored(self) -> StoredMessage:
        return StoredMessage.of(self.received, self.delivery.queue)

    def _letter(
        self, reason: Reason, outcome: Outcome, facts: RunFacts, now: datetime
    ) -> Letter:
        delivery = self.delivery
        return Letter(
            message=self._stored(),
            task_id=delivery.task_id,
            task_name=delivery.task_name,
            reason=reason,
            buried_at=now,
            cause=outcome.cause,
            exception_type=outcome.exception_type,
            exception_message=outcome.exception_message,
            traceback=outcome.traceback,
            stack=outcome.stack,
            soft_stack=outcome.soft_stack,
            waiting_for=outcome.waiting_for,
            attempts=delivery.attempt + 1,
            deliveries=delivery.deliveries,
            node=facts.node,
            pid=facts.pid,
            runtime_seconds=facts.runtime_seconds,
            rss_bytes=facts.rss_bytes,
            cpu_seconds=facts.cpu_seconds,
            child_age_seconds=facts.child_age_seconds,
        )


def _log(delivery: Delivery, outcome: Outcome, verdict: Verdict) -> None:
    if isinstance(verdict, Ack):
        return
    facts = about(
        delivery,
        ending=outcome.ending,
        why=outcome.cause or outcome.exception_message,
    )
    match verdict:
        case Bury(reason):
            logger.error(
                "Task %(task)s is buried: %(fields)s",
                Fields({"reason": reason, **facts}),
            )
        case Requeue(at) | Retry(at):
            waits = outcome.ending is Ending.LOCK_BUSY
            logger.log(
                logging.INFO if waits else logging.WARNING,
                "Task %(task)s runs again: %(fields)s",
                Fields(facts, at=at.isoformat(timespec="seconds")),
            )


def about(delivery: Delivery, **fields: Any) -> Fields:
    """The fields of a line that is about a delivery."""
    return Fields(
        task_id=delivery.task_id,
        task_name=delivery.task_name,
        **fields,
        attempt=delivery.attempt + 1,
    )
