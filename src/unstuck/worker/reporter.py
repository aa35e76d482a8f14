"""What main tells the recorder of the runs that it saw end."""

from __future__ import annotations

from unstuck.core.clock import system_clock
from unstuck.core.delivery import Delivery
from unstuck.core.facts import Minutes, Run
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.verdict import Ack, Bury, Requeue, Retry, Verdict
from unstuck.worker.channel import FactChannel
from unstuck.worker.settle import RunFacts

FLUSH_SECONDS = 5

COULD_SWALLOW = (
    Ending.SUCCEEDED,
    Ending.FAILED,
    Ending.IGNORED,
    Ending.REJECTED,
    Ending.HARD_LIMIT,
)
"""What a task can come to that caught its soft limit and went on."""


class Reporter:
    """Counts each ending, and tells of each that was no plain success."""

    def __init__(self, node: str, channel: FactChannel | None) -> None:
        self._node = node
        self._channel = channel
        self._minutes = Minutes(node)

    def ended(
        self, delivery: Delivery, outcome: Outcome, verdict: Verdict, facts: RunFacts
    ) -> None:
        """A delivery has come to its end."""
        if self._channel is None:
            return
        swallowed = facts.interrupted and outcome.ending in COULD_SWALLOW
        self._minutes.add(
            delivery.task_name,
            delivery.queue,
            outcome.ending.value,
            facts.runtime_seconds,
            facts.rss_growth_bytes,
            swallowed,
            system_clock(),
        )
        if outcome.ending is not Ending.SUCCEEDED or swallowed:
            run = _run(self._node, delivery, outcome, verdict, facts, swallowed)
            self._channel.send(run)

    def flush(self) -> None:
        """Send what was counted since the last time."""
        for minute in self._minutes.flush(system_clock(), everything=True):
            if self._channel is not None:
                self._channel.send(minute)


def _run(
    node: str,
    delivery: Delivery,
    outcome: Outcome,
    verdict: Verdict,
    facts: RunFacts,
    swallowed: bool,
) -> Run:
    return Run(
        task_id=delivery.task_id,
        task_name=delivery.task_name,
        queue=delivery.queue,
        attempt=delivery.attempt + 1,
        deliveries=delivery.deliveries,
        ending=outcome.ending.value,
        verdict=_name_of(verdict),
        reason=verdict.reason.value if isinstance(verdict, Bury) else "",
        cause=outcome.cause,
        exception_type=outcome.exception_type,
        exception_message=outcome.exception_message,
        traceback=outcome.traceback,
        stack=outcome.stack,
        soft_stack=outcome.soft_stack,
        swallowed_soft_limit=swallowed,
        waiting_for=outcome.waiting_for,
        node=node,
        pid=facts.pid,
        started_at=facts.started_at,
        ended_at=system_clock(),
        runtime_seconds=facts.runtime_seconds,
        rss_bytes=facts.rss_bytes,
        rss_growth_bytes=facts.rss_growth_bytes,
        cpu_seconds=facts.cpu_seconds,
        child_age_seconds=facts.child_age_seconds,
    )


def _name_of(verdict: Verdict) -> str:
    match verdict:
        case Ack():
            return "ack"
        case Retry():
            return "retry"
        case Requeue():
            return "requeue"
        case Bury():
            return "bury"
