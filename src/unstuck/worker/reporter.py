"""What main tells the recorder of the runs that it saw end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from unstuck.core.clock import system_clock
from unstuck.core.delivery import Delivery
from unstuck.core.facts import Minutes, Run, Running
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.verdict import Ack, Bury, Requeue, Retry, Verdict
from unstuck.metrics.tally import Tally
from unstuck.pool.board import MAIN
from unstuck.worker.channel import FactChannel
from unstuck.worker.settle import RunFacts

FLUSH_SECONDS = 5

LONG_SECONDS = 2
"""So long something must have run to be told of while it runs."""

MOST_RUNNING = 100

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

    def __init__(
        self,
        node: str,
        channel: FactChannel | None,
        tally: Tally | None = None,
        *,
        each: bool = False,
    ) -> None:
        """``each``: tells of plain successes as well."""
        self._each = each
        self._node = node
        self._channel = channel
        tally = tally or Tally()
        self._by_task = tally.by_task()
        self._counts = tally.sheet(MAIN)
        self._minutes = Minutes(node)
        self._told_running = False

    def ended(
        self, delivery: Delivery, outcome: Outcome, verdict: Verdict, facts: RunFacts
    ) -> None:
        """A delivery has come to its end."""
        if outcome.ending is Ending.LOCK_BUSY:
            self._counts.count("put_off")
            return  # What is put off has not run.
        swallowed = facts.interrupted and outcome.ending in COULD_SWALLOW
        self._minutes.add(
            delivery.task_name,
            delivery.queue,
            outcome.ending.value,
            facts.runtime_seconds,
            facts.waited_seconds,
            facts.rss_growth_bytes,
            swallowed,
            system_clock(),
        )
        if self._each or outcome.ending is not Ending.SUCCEEDED or swallowed:
            self._count(delivery, outcome, verdict)
            if self._channel is not None:
                run = _run(self._node, delivery, outcome, verdict, facts, swallowed)
                self._channel.send(run)

    def _count(self, delivery: Delivery, outcome: Outcome, verdict: Verdict) -> None:
        """Add to the metrics what minutes do not say."""
        if outcome.is_strike:
            self._counts.count("strikes")
        if not isinstance(verdict, Ack):
            names = _name_of(verdict), _reason_of(verdict)
            self._by_task.settle(delivery.task_name, delivery.queue, *names)

    def turned_away(self, queue: str, outcome: Outcome, verdict: Verdict) -> None:
        """A message that is of no task here goes elsewhere."""
        names = _name_of(verdict), _reason_of(verdict)
        self._by_task.turn_away(queue, outcome.ending.value, *names)

    def flush(self) -> None:
        """Tell what was counted since the last time."""
        for minute in self._minutes.flush(system_clock(), everything=True):
            self._by_task.add(minute)
            if self._channel is not None:
                self._channel.send(minute)

    def running(self, requests: Iterable[Any]) -> None:
        """Send which of these have run for a while; nothing as long as none has."""
        if self._channel is None:
            return
        now = system_clock()
        old = now.timestamp() - LONG_SECONDS
        started = ((request.time_start, request) for request in requests)
        long = sorted(
            (at, id(r), r) for at, r in started if at is not None and at < old
        )
        runs = [_running(request) for _, _, request in long[:MOST_RUNNING]]
        if runs or self._told_running:
            self._channel.send(Running(at=now, runs=runs))
        self._told_running = bool(runs)


def _running(request: Any) -> dict[str, Any]:
    hard, soft = request.time_limits or (None, None)
    if not (hard or soft):
        hard, soft = request.task.time_limit, request.task.soft_time_limit
    started_at = datetime.fromtimestamp(request.time_start, UTC)
    return {
        "task_id": request.id,
        "task_name": request.name,
        "queue": request.queue,
        "started_at": started_at.isoformat(),
        "soft": soft,
        "hard": hard,
        "pid": request.worker_pid,
    }


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
        reason=_reason_of(verdict),
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
        waited_seconds=facts.waited_seconds,
        runtime_seconds=facts.runtime_seconds,
        rss_bytes=facts.rss_bytes,
        rss_growth_bytes=facts.rss_growth_bytes,
        cpu_seconds=facts.cpu_seconds,
        child_age_seconds=facts.child_age_seconds,
    )


def _reason_of(verdict: Verdict) -> str:
    return verdict.reason.value if isinstance(verdict, Bury) else ""


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
