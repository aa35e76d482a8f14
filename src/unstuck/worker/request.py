"""Main's view of one delivery: every hook that Celery calls becomes an outcome.

Celery seams used here (each covered by tests/integration/test_seams.py): the pools call
``on_accepted``, ``on_success``, ``on_failure`` and ``on_timeout``; the worker calls
``execute_using_pool``, ``revoked``, ``terminate`` and ``reject``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from weakref import ref

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import TaskRevokedError
from celery.worker import request as celery_request
from celery.worker.state import task_ready
from kombu.utils.encoding import safe_repr

from unstuck import tracing
from unstuck.core import broker
from unstuck.core.clock import system_clock
from unstuck.core.limits import Limits
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.verdict import Ack, Bury, Requeue, Retry, Verdict
from unstuck.fields import Fields
from unstuck.pool.answers import info_of
from unstuck.pool.evidence import Evidence
from unstuck.pool.job import Job, nothing
from unstuck.pool.proc import rss_of
from unstuck.worker import hooks, notes, unique
from unstuck.worker.outcomes import (
    Skipped,
    outcome_of,
    outcome_of_error,
    unwrapped,
)
from unstuck.worker.policy import limits_of
from unstuck.worker.queues import queue_of
from unstuck.worker.settle import Handover, RunFacts

logger = logging.getLogger(__name__)

RECORDED_BY_CHILD = (Ending.FAILED, Ending.SOFT_LIMIT)
"""The tracer in the child has stored these, run the hooks and failed the canvas."""


PROCESS_IS_GONE = (
    Ending.HARD_LIMIT,
    Ending.CHILD_LOST,
    Ending.NODE_LOST,
    Ending.REVOKED,
)
"""The process of the task did not live to record its run, if it had begun."""


class Request(celery_request.Request):
    """A delivery that is settled exactly once, whatever becomes of its task."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # celery.worker.request.create_request_cls() makes a subclass for each task
        # whose own on_success() and execute_using_pool() would bypass ours.
        super().__init_subclass__(**kwargs)
        for bypass in ("on_success", "execute_using_pool"):
            if bypass in vars(cls):
                delattr(cls, bypass)

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._consumer = self._app.consumer_in_charge
        self._consumer.waiting.add(self)
        self._evidence = Evidence()
        """What our pool sees of the run; with other pools, nothing."""

        self._runs_in_child = False
        self._future: Callable[[], Any] = nothing
        """In a pool of threads: the call, as long as the pool has it."""

    # What the worker asks of a request.

    def execute_using_pool(self, pool: Any, **options: Any) -> Any:
        """Hand the task to the pool under the limits in force for this call."""
        if self._handover.reports:
            # Given back while it waited for a free child.
            raise TaskRevokedError(self.id)
        said: Any = self.time_limits  # type: ignore[has-type] # set by Celery
        hard, soft = said or (None, None)
        if hard or soft:
            limits = limits_of(self.task, self._app, Limits(hard=hard, soft=soft))
            self.time_limits = (limits.hard, limits.soft)
        try:
            result = super().execute_using_pool(pool, **options)
        except TaskRevokedError:
            raise
        except Exception:
            # The pool could not take it, or (solo) the tracer itself failed.
            self.on_failure(ExceptionInfo())
            return None
        self._watch_future()
        if isinstance(result, Job):
            self._runs_in_child = True
            result.may_start = self._may_start
            self._evidence = result.evidence
        return result

    def _may_start(self) -> bool:
        """Asked by the pool when a child is free: much can have happened meanwhile."""
        if self._handover.reports or self.revoked():
            return False
        if not self._handover.is_ours:
            # This node was away for so long that others may have it already.
            logger.warning("Task %(task)s does not start here any more", self._named)
            self.give_back()
            return False
        return True

    def give_back(self) -> None:
        """Let other nodes have what has not started here, as if it had not come."""
        task_ready(self)
        self._consumer.waiting.discard(self)
        self._message.reject_log_error(logger, self._connection_errors, requeue=True)

    def _watch_future(self) -> None:
        """In a pool of threads: hear of a task whose tracer raised.

        Celery calls nobody back then, and the message would stay in hand for ever.
        """
        result = self._apply_result and self._apply_result()
        future = getattr(result, "f", None)
        if future is not None:
            self._future = ref(future)
            future.add_done_callback(self._on_future_done)

    def _on_future_done(self, future: Any) -> None:
        if not future.cancelled() and future.exception() is not None:
            error = future.exception()
            self.on_failure(info_of(error))

    def take_back(self) -> bool:
        """Take the task out of the pool if no thread has begun with it."""
        if not self.is_in_pool:
            return True
        result = self._apply_result()
        job = result if isinstance(result, Job) else self._future()
        return bool(job is not None and job.cancel())

    @property
    def was_recalled(self) -> bool:
        """Whether our pool has it and no child has: it may have been taken back from one."""
        job = self._apply_result and self._apply_result()
        return isinstance(job, Job) and not job.sent

    @property
    def queue(self) -> str:
        """Where its message came from."""
        return self._handover.delivery.queue

    @property
    def is_in_pool(self) -> bool:
        """Whether the pool has the task, so that it may start at any moment."""
        return self._apply_result is not None

    def acknowledge(self) -> None:
        """Nothing: Celery acknowledges at many points, we do when all is settled."""

    def reject(self, requeue: bool = False) -> None:
        """End a delivery that Celery cannot run."""
        self._end(Outcome(ending=Ending.REJECTED, requeue=requeue))

    def is_same(self, message: Any) -> bool:
        """Whether a redelivery is that of this very attempt."""
        attempt = message.headers.get("retries")
        return bool(attempt == self._request_dict.get("retries"))

    def adopt(self, message: Any, ack: Any, reject: Any) -> None:
        """Take over a redelivery of what still runs here.

        After a lost connection the broker hands out again what this process still
        works at. The new hand-over is the one that can be acknowledged.
        """
        logger.info(
            "Task %(task)s still runs here: adopting its redelivery", self._named
        )
        self._message, self._on_ack, self._on_reject = message, ack, reject
        self._handover.adopt(message)

    def came_back(self) -> None:
        """End the delivery that brought a message back after its node was lost."""
        if self.revoked():
            return
        if self._consumer.echoes.knows(self._handover.delivery):
            logger.info("Task %(task)s has come to its end here", self._named)
            self._consumer.waiting.discard(self)
            self._acknowledge()
            return
        if self._has_stored_its_success():
            return
        waits = self.eta is not None and self.eta > system_clock()
        error = WorkerLostError("The node that had this message is gone.")
        outcome = outcome_of_error(
            Ending.NODE_LOST, error, cause="node lost", started=not waits
        )
        self._end(outcome, error)

    def hand_back(self) -> None:
        """Give the message to other nodes because this one shuts down."""
        task_ready(self)
        error = WorkerLostError("The worker was shut down.")
        outcome = outcome_of_error(
            Ending.CHILD_LOST,
            error,
            cause="worker shut down",
            deliberate=True,
            started=self.time_start is not None,
        )
        self._end(outcome, error)

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell who listens, if anybody does: most of the time nobody has asked."""
        groups = self._eventer and self._eventer.groups
        if not groups or "task" in groups:
            super().send_event(type, **fields)

    # What the pools report.

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A process has begun with the task."""
        self._consumer.waiting.discard(self)
        super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime: Any, **_: Any) -> None:
        """The tracer came to its end, be it with the task's result or its error."""
        if isinstance(failed__retval__runtime, ExceptionInfo):
            # celery.concurrency.base.apply_target reports a BaseException like this.
            return self.on_failure(failed__retval__runtime)
        failed, result, runtime = failed__retval__runtime
        if failed:
            return self.on_failure(result, return_ok=True)
        # Only a tracer in this process would ask which have succeeded here.
        task_ready(self, successful=not self._runs_in_child)
        self.send_event("task-succeeded", result=result, runtime=runtime)
        self._end(Outcome(ending=Ending.SUCCEEDED))

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """The task raised, or the process that ran it is gone.

        ``return_ok`` says that the tracer in the child lived to record it.
        """
        task_ready(self)
        error = unwrapped(exc_info)
        outcome = outcome_of(exc_info)
        if outcome.ending is Ending.REVOKED:
            if not (self._already_cancelled or self._already_revoked):
                self._announce_revoked("terminated", True, str(error), False)
            return
        if outcome.ending is Ending.CHILD_LOST:
            if self._already_cancelled or self._already_revoked:
                return
            if self._has_stored_its_success():
                return
        recorded = return_ok and outcome.ending in RECORDED_BY_CHILD
        self._end(outcome, error, exc_info, recorded=recorded)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The pool saw a time limit pass; at the hard one it kills the child."""
        if soft:
            super().on_timeout(soft, timeout)
            return
        self.on_hard_limit(timeout)

    def on_hard_limit(self, timeout: float, stack: str = "") -> None:
        """The task is stopped from outside; ``stack`` tells where it stood."""
        task_ready(self)
        if self._has_stored_its_success():
            return
        error = TimeLimitExceeded(timeout)
        self._end(outcome_of_error(Ending.HARD_LIMIT, error, stack=stack), error)

    def _announce_revoked(
        self, reason: str, terminated: bool, signum: Any, expired: bool
    ) -> None:
        self._safely(super()._announce_revoked, reason, terminated, signum, expired)
        self._already_revoked = True
        self._end(Outcome(ending=Ending.EXPIRED if expired else Ending.REVOKED))

    def _has_stored_its_success(self) -> bool:
        """End as a success what has stored one and was stopped before it could tell.

        Celery 5.7 can ask the result store; the other half of the time between is the
        task's own hooks, which may hang as well as the task.
        """
        ask = getattr(self, "_success_was_stored", None)
        if not (ask and ask()):
            return False
        logger.warning("Task %(task)s had succeeded when it was stopped", self._named)
        self._end(Outcome(ending=Ending.SUCCEEDED))
        return True

    # The end.

    def _end(
        self,
        outcome: Outcome,
        error: BaseException | None = None,
        exc_info: Any = None,
        *,
        recorded: bool = False,
    ) -> None:
        outcome = self._with_evidence(outcome)
        verdict = self._handover.verdict_on(outcome)
        if verdict is None:
            return
        if self.time_start is None:
            self._consumer.waiting.discard(self)
        facts = self._facts()
        if error is not None:
            self._announce(verdict, error, exc_info or info_of(error), recorded)
        if self._has_no_span(outcome):
            self._trace(outcome)
        self._handover.settle(verdict, outcome, facts)
        self._consumer.reporter.ended(self._handover.delivery, outcome, verdict, facts)
        self._let_others_be_called(outcome, verdict)

    def _has_no_span(self, outcome: Outcome) -> bool:
        """Whether nobody is left who could record the run."""
        if outcome.ending is Ending.HARD_LIMIT and self.worker_pid == os.getpid():
            return False  # A thread is not killed, but interrupted.
        begun = self.time_start is not None or outcome.ending is Ending.NODE_LOST
        return begun and outcome.started and outcome.ending in PROCESS_IS_GONE

    def _trace(self, outcome: Outcome) -> None:
        why = outcome.cause or outcome.exception_message
        tracing.run_was_lost(
            self._handover.about,
            self._request_dict,
            started=self.time_start,
            ending=outcome.ending,
            error=(outcome.exception_type, why),
            stack=outcome.stack,
        )

    def _let_others_be_called(self, outcome: Outcome, verdict: Verdict) -> None:
        """Release what kept other calls out, if the process of the task has not."""
        lock = self.task.lock_options_if_good
        goes_on = outcome.ending is Ending.RETRIED
        over = isinstance(verdict, (Ack, Bury)) and not goes_on
        if lock is None or not lock.is_unique or not over:
            return
        with suppress(Exception):  # Of arguments that cannot be read nobody took it.
            claim = unique.claim_of(lock, self.args, self.kwargs, self.id)
            self._consumer.leases.release(claim, unique.QUEUED_SECONDS)

    def _with_evidence(self, outcome: Outcome) -> Outcome:
        seen = self._evidence
        if not (seen.stack or seen.soft_stack or seen.cause or seen.waiting_for):
            return outcome
        return replace(
            outcome,
            stack=outcome.stack or seen.stack,
            soft_stack=seen.soft_stack,
            waiting_for=seen.waiting_for,
            cause=seen.cause or outcome.cause,
        )

    def _announce(
        self, verdict: Verdict, error: BaseException, exc_info: Any, recorded: bool
    ) -> None:
        """Tell the result backend, the canvas, hooks and events what is decided."""
        match verdict:
            case Bury():
                if not recorded:
                    stores = bool(self.store_errors)
                    self._run_hook(hooks.record_failure, error, exc_info, stores)
                self._send_exception("task-failed", error, exc_info)
            case Retry():
                self._run_hook(hooks.record_retry, error, exc_info)
                self._send_exception("task-retried", error, exc_info)
            case Requeue():
                self.send_event("task-rejected", requeue=True)
            case Ack():
                if isinstance(error, Skipped):
                    how = {"terminated": False, "signum": None, "expired": False}
                    self.send_event("task-revoked", **how)
                if isinstance(error, celery_request.Retry):
                    self._send_exception("task-retried", error, exc_info)

    def _run_hook(
        self, hook: Any, error: BaseException, exc_info: Any, *args: Any
    ) -> None:
        traceback = self._evidence.stack or exc_info.traceback
        request = {**vars(self._context), "args": self.args, "kwargs": self.kwargs}
        self._safely(
            *(hooks.run, self._consumer.pool, hook),
            *(self.name, request, error, traceback, *args),
        )

    def _safely(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """Call what others wrote; its error must not keep the message from ending."""
        try:
            function(*args, **kwargs)
        except Exception:
            logger.exception(
                "What is called at the end of task %(task)s raised: %(fields)s",
                Fields(self._named, function=safe_repr(function)),
            )

    @property
    def _named(self) -> Fields:
        return Fields(task_id=self.id, task_name=self.name)

    def _send_exception(self, event: str, error: BaseException, exc_info: Any) -> None:
        self.send_event(
            event, exception=safe_repr(error), traceback=str(exc_info.traceback or "")
        )

    @cached_property
    def _handover(self) -> Handover:
        return Handover(
            app=self._app,
            received=self._message,
            delivery=notes.delivery_from(
                self._request_dict,
                queue_of(self._message, self._consumer),
                one_step=broker.lasting(self._message.channel) is not None,
            ),
            policy=self._consumer.policy_of(self.task),
            ack=self._acknowledge,
            later=self._consumer.later,
            connection=self._consumer.connection_number,
            retry=self._publish_retry,
            settled=self._consumer.echoes.settled,
        )

    def _acknowledge(self) -> None:
        self.acknowledged = True
        if (
            self._handover.delivery.one_step
            and self._consumer._maximum_prefetch_restored
        ):
            # That only takes a note: no need for the detour through the event loop.
            self._message.ack_log_error(logger, self._connection_errors)
            return
        # Celery 5.7 on Redis: the channel of a lost connection has no address any more.
        self._on_ack(logger, (*self._connection_errors, AttributeError))

    def acknowledge_at_once(self) -> None:
        """Acknowledge from another thread, while the main one is stuck for good."""
        if not self._message.acknowledged:
            self._message.ack_log_error(logger, self._connection_errors)

    def _publish_retry(self, verdict: Retry, producer: Any) -> None:
        context = self._context
        wait = (verdict.at - system_clock()).total_seconds()
        # A producer that carries it out later has nothing to try again or to declare.
        in_place = {"producer": producer, "retry": False, "declare": []}
        options = in_place if producer else {}
        again = self.task.signature_from_request(
            context,
            self.args,
            self.kwargs,
            countdown=max(wait, 0),
            retries=context.retries + 1,
        )
        with tracing.within(self._request_dict):
            again.apply_async(**options)

    def _facts(self) -> RunFacts:
        started, seen = self.time_start, self._evidence
        return RunFacts(
            node=self._hostname,
            pid=self.worker_pid,
            started_at=datetime.fromtimestamp(started, UTC) if started else None,
            waited_seconds=self._waited(started) if started else None,
            runtime_seconds=time.time() - started if started else None,
            rss_bytes=seen.rss_bytes or rss_of(self.worker_pid or 0),
            rss_growth_bytes=seen.rss_growth_bytes,
            cpu_seconds=seen.cpu_seconds,
            child_age_seconds=seen.child_age_seconds,
            interrupted=seen.interrupted,
        )

    def _waited(self, started: float) -> float | None:
        """How long it could have run and did not; ``None`` if nobody knows since when.

        Several clocks are asked: that of the broker or of who sent it, and ours.
        """
        if self._handover.delivery.one_step:
            since: float | None = self._message.channel.put_at(
                self._message.delivery_tag
            )
        else:
            since = notes.sent_at(self._message.headers)
        if since is None:
            return None
        if self.eta is not None:
            since = max(since, self.eta.timestamp())
        return max(0.0, started - since)
