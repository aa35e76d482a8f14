"""Rules for the longest run of each task that was observed, against each timeout."""

from __future__ import annotations

import math
from collections.abc import Iterator

from unstuck.checks.broker import CONSUMER_TIMEOUT
from unstuck.doctor.facts import Longest, Seen
from unstuck.doctor.rabbitmq import consumer_timeout
from unstuck.doctor.rule import Found, Level, found, rule

CLOSE = 0.9
"""The share of a limit from which the next bad day exceeds it."""


@rule(
    "D060",
    Level.WARNING,
    title="a task that runs nearly as long as it may",
    says="{task} has run for {seconds:.1f} s; its {kind} limit is {limit:g} s.",
    why="With a little more to do it is stopped there, and becomes a dead letter.",
    remedy="`@shared_task(time_limit={twice:.0f})`, or less work in one task",
)
def close_to_limit(seen: Seen) -> Iterator[Found]:
    """D060: the soft limit, else the hard one."""
    for run in _longest(seen):
        limits = seen.here.limits.get(run.task)
        if limits is None:
            continue
        limit, kind = (limits.soft, "soft") if limits.soft else (limits.hard, "hard")
        if limit and run.seconds >= CLOSE * limit:
            twice = 2 * (limits.hard or limit)
            yield _of(run, limit=limit, kind=kind, twice=twice)


@rule(
    "D061",
    Level.ERROR,
    title="a task that runs longer than the broker waits for it",
    says="{task} has run for {seconds:.1f} s; after {limit:g} s the broker gives its message "
    "to another worker.",
    why="It runs twice at the same time, and more often if it takes longer still.",
    remedy="`CELERY_BROKER_TRANSPORT_OPTIONS = {{'visibility_timeout': {twice:.0f}}}`, in the "
    "settings",
)
def beyond_visibility(seen: Seen) -> Iterator[Found]:
    """D061: on SQS, and on redis:// with the solo pool; elsewhere workers renew it."""
    limit = seen.here.given_away_after
    for run in _longest(seen):
        if limit and run.seconds >= CLOSE * limit:
            yield _of(run, limit=limit, twice=2 * max(run.seconds, limit))


@rule(
    "D062",
    Level.ERROR,
    title="a task that runs longer than RabbitMQ waits for an acknowledgement",
    says="{task} has run for {seconds:.1f} s; RabbitMQ waits for {limit:g} s{where}.",
    why="It closes the channel of the worker then, and hands out again all that the worker "
    "had in hand: the task runs twice.",
    remedy="`consumer_timeout = {milliseconds:.0f}` in rabbitmq.conf, or in the policy that "
    "says less",
)
def beyond_acknowledgement(seen: Seen) -> Iterator[Found]:
    """D062: what rabbitmq.conf says is not told to anybody; its default is assumed."""
    if seen.rabbit is None:
        return
    for run in seen.archive.longest if seen.archive else ():
        queue = run.queue or seen.here.goes_to.get(run.task)
        if queue is None:
            continue
        limit, where = _patience(seen, queue)
        if run.seconds >= CLOSE * limit:
            milliseconds = 2000 * max(run.seconds, limit)
            yield _of(run, limit=limit, where=where, milliseconds=milliseconds)


@rule(
    "D063",
    Level.ERROR,
    title="a time limit beyond what RabbitMQ waits for an acknowledgement",
    says="{task} may run {limit}; in {queue} RabbitMQ waits for {seconds:g} s.",
    why="It closes the channel of the worker then, and hands out again all that the worker "
    "had in hand: the task runs twice.",
    remedy="`rabbitmqctl list_policies -p {vhost}` says which policy has consumer-timeout; set "
    "{enough}",
)
def may_run_beyond(seen: Seen) -> Iterator[Found]:
    """D063: by a policy, which no static check (W007) can know. Of the tasks that are sent
    to the queue the longest is named."""
    for queue in seen.queues:
        seconds = consumer_timeout(queue)
        limit, task = max(_limits_in(seen, queue.name), default=(0.0, ""))
        if seconds is not None and limit >= seconds:
            is_bounded = limit < math.inf
            yield found(
                queue.name,
                task=task,
                limit=f"for {limit:g} s" if is_bounded else "for ever",
                queue=queue.name,
                seconds=seconds,
                vhost=seen.rabbit.vhost if seen.rabbit else "/",
                enough=f"{2000 * limit:.0f} or more there"
                if is_bounded
                else "twice the time_limit there that you give the task, in milliseconds",
            )


@rule(
    "D064",
    Level.INFO,
    title="a task that runs longer than a worker waits when it stops",
    says="{task} has run for {seconds:.1f} s; a worker that stops waits for {limit:g} s.",
    why="At a deploy it is stopped then and runs again from its beginning elsewhere.",
    remedy="`CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = {twice:.0f}`, and a stop timeout above it "
    "where workers are started; or let it be",
)
def beyond_shutdown(seen: Seen) -> Iterator[Found]:
    """D064: right for most; a deploy in the middle of an hour's run is not for all."""
    limit = seen.here.shutdown_seconds
    for run in _longest(seen):
        if limit and run.seconds > limit:
            yield _of(run, limit=limit, twice=2 * run.seconds)


def _longest(seen: Seen) -> Iterator[Longest]:
    """That of each task, from whatever queue."""
    told: set[str] = set()
    runs = seen.archive.longest if seen.archive else ()
    for run in sorted(runs, key=lambda run: run.seconds, reverse=True):
        if run.task not in told:
            told.add(run.task)
            yield run


def _patience(seen: Seen, queue: str) -> tuple[float, str]:
    """For how many seconds RabbitMQ waits for those who read a queue, and what says so."""
    for each in seen.queues:
        seconds = consumer_timeout(each)
        if each.name == queue and seconds is not None:
            return seconds, f" in {queue}"
    return float(CONSUMER_TIMEOUT), ", unless its configuration says otherwise"


def _limits_in(seen: Seen, queue: str) -> Iterator[tuple[float, str]]:
    """How long each task may run that is sent to a queue."""
    for task, limits in seen.here.limits.items():
        if seen.here.goes_to.get(task) == queue:
            yield limits.hard or math.inf, task


def _of(run: Longest, **facts: object) -> Found:
    return found(run.task, since=run.at, task=run.task, seconds=run.seconds, **facts)
