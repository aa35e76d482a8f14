"""Messages that are not for any task here: kept for another worker, or buried."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from celery import signals
from celery.exceptions import NotRegistered

from unstuck.core.clock import system_clock
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.verdict import Requeue, Verdict
from unstuck.fields import Fields
from unstuck.worker import hooks, notes
from unstuck.worker.outcomes import outcome_of_error
from unstuck.worker.policy import policy_of_no_task
from unstuck.worker.queues import queue_of
from unstuck.worker.settle import Handover, RunFacts

logger = logging.getLogger(__name__)


class TurnedAway:
    """What a consumer does with them. A message of theirs has no request."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def unknown(self, message: Any, exc: BaseException) -> None:
        """Give a task that is not registered here to who knows it, or bury it in the end."""
        name = message.headers.get("task") if message.headers else None
        error = NotRegistered(name or str(exc))
        outcome = outcome_of_error(Ending.UNKNOWN_TASK, error)
        handover = self._handover(message, later=self._hold)
        verdict = handover.decide(outcome)
        if not isinstance(verdict, Requeue):
            self._bury_unknown(handover, verdict, outcome, error, exc)
            return
        if handover.delivery.queue in self._consumer.rabbit.can_delay:
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

    def reject(self, message: Any, error: BaseException) -> None:
        """Bury what cannot be read."""
        outcome = outcome_of_error(Ending.UNDECODABLE, error)
        handover = self._handover(message, later=self._consumer.later)
        verdict = handover.decide(outcome)
        self._record_failure(message, error)
        self._settle(handover, verdict, outcome)
        signals.task_rejected.send(sender=self._consumer, message=message, exc=error)

    def _bury_unknown(
        self,
        handover: Handover,
        verdict: Verdict,
        outcome: Outcome,
        error: BaseException,
        exc: BaseException,
    ) -> None:
        self._record_failure(handover.received, error)
        self._settle(handover, verdict, outcome)
        signals.task_unknown.send(
            sender=self._consumer,
            message=handover.received,
            exc=exc,
            name=handover.delivery.task_name,
            id=handover.delivery.task_id,
        )

    def _settle(self, handover: Handover, verdict: Verdict, outcome: Outcome) -> None:
        handover.settle(verdict, outcome, self._facts())
        self._consumer.reporter.turned_away(handover.delivery.queue, outcome, verdict)

    def _handover(self, message: Any, later: Callable[..., None]) -> Handover:
        consumer = self._consumer
        queue = queue_of(message, consumer)
        delivery = notes.delivery_from(message.headers or {}, queue)
        return Handover(
            app=consumer.app,
            received=message,
            delivery=replace(
                delivery, unknown_since=delivery.unknown_since or system_clock()
            ),
            policy=policy_of_no_task(),
            ack=partial(message.ack_log_error, logger, consumer.connection_errors),
            later=later,
            connection=consumer.connection_number,
        )

    def _facts(self) -> RunFacts:
        return RunFacts(node=self._consumer.hostname)

    def _hold(self, seconds: float, function: Callable[[], None]) -> None:
        """Call it later, and let one more message in meanwhile."""
        consumer = self._consumer
        qos = consumer.qos

        def let_go() -> None:
            # A new connection has a new one, which begins at the count of the project.
            if consumer.qos is qos:
                qos.decrement_eventually()
            function()

        qos.increment_eventually()
        consumer.later(seconds, let_go)

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
            hooks.run(self._consumer.pool, hooks.record_unread, name, request, error)
            if dispatcher := self._consumer.event_dispatcher:
                dispatcher.send(
                    "task-failed", uuid=headers["id"], exception=repr(error)
                )
        except Exception:
            logger.exception(
                "The failure of task %(task)s was not recorded",
                Fields(task_id=headers["id"], task_name=headers.get("task")),
            )


def _embedded(message: Any) -> dict[str, Any]:
    """Callbacks, chain and chord of a message, if its body can be read."""
    try:
        embed = message.payload[2]
    except Exception:
        # It is undecodable: that is why we are here.
        return {}
    return dict(embed) if isinstance(embed, dict) else {}
