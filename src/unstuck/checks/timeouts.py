"""Rules for how long: what the broker grants a task, and what waits without end."""

from __future__ import annotations

from collections.abc import Iterator

from unstuck import conf
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.source import number_in
from unstuck.checks.view import Project, TaskView

HARD = "task_time_limit"

QUEUE_SERVICES = ("sqs", "slmq")
"""Brokers with a visibility timeout that no worker renews."""

SERVICE_SECONDS = 1800
"""kombu's visibility timeout for them."""

REDIS_SECONDS = 3600
"""kombu's visibility timeout on Redis."""

SHORTEST_LEASE, LONGEST_LEASE = 2, 300

DELAYING = ("apply_async", "retry", "signature", "si", "s", "set")


def seconds_until_given_away(project: Project) -> float | None:
    """After how long the broker gives a message that is in hand to another worker.

    ``None`` where it does not, or a worker of ours renews it in time. A worker that runs
    tasks in its main thread (solo) renews nothing meanwhile.
    """
    options, scheme = project.broker_options, project.broker.partition("+")[0]
    if scheme in QUEUE_SERVICES:
        return float(options.get("visibility_timeout") or SERVICE_SECONDS)
    if is_stock_redis(project) and "solo" in str(project.conf.worker_pool):
        return float(options.get("visibility_timeout") or REDIS_SECONDS)
    return None


def is_stock_redis(project: Project) -> bool:
    """Whether the broker is a Redis by kombu's own transport."""
    scheme = project.broker.partition("+")[0]
    return scheme in ("redis", "rediss", "sentinel", "valkey", "valkeys")


@rule(
    "W027",
    title="a time limit above the broker's visibility timeout",
    says="{subject}, and the broker gives a message to another worker after {seconds:g} s: "
    "the task would run twice at once.",
    remedy="Give a limit below it, or raise visibility_timeout in {options}.",
)
def limits_above_visibility(project: Project) -> Iterator[Found]:
    """W027: for brokers where nobody renews what is in hand."""
    seconds = seconds_until_given_away(project)
    if seconds is None:
        return
    options = project.spelled("broker_transport_options")
    hard = project.conf.task_time_limit
    if not hard or hard > seconds:
        key = project.spelled(HARD)
        yield found(key, subject=project.shown(HARD), seconds=seconds, options=options)
    for view in project.tasks:
        own = view.own_limits.hard
        if own and own > seconds:
            subject = f"The task {view.name} has time_limit={own!r}"
            yield found(view.name, subject=subject, seconds=seconds, options=options)


@rule(
    "W028",
    title="an ETA beyond the broker's visibility timeout",
    says="{subject}, and the broker gives a message that waits in a worker to another one "
    "after {seconds:g} s: it would run several times.",
    remedy="Wait for less than that, raise visibility_timeout in {options}, or use "
    "unstuck+redis:// or amqp://, where ETAs wait on the broker.",
)
def etas_above_visibility(project: Project) -> Iterator[Found]:
    """W028: of retries, of calls in the source of tasks and of beat."""
    seconds = seconds_until_given_away(project)
    if seconds is None:
        return
    options = project.spelled("broker_transport_options")
    for obj, subject, wait in _waits(project):
        if wait > seconds:
            yield found(obj, subject=subject, seconds=seconds, options=options)


@rule(
    "W029",
    title="a visibility timeout that is shorter than a pause of a worker",
    says="{options}['visibility_timeout'] = {seconds!r}: a worker whose main process stands "
    "still is noticed after {stall:g} s, and by then its tasks run elsewhere as well.",
    remedy="Raise it above {twice:g}; or use unstuck+redis://, which needs none.",
)
def visibility_below_stall(project: Project) -> Iterator[Found]:
    """W029: on Redis by kombu's transport, where a worker of ours renews it."""
    seconds = project.broker_options.get("visibility_timeout")
    stall = conf.current().stall_seconds
    if is_stock_redis(project) and seconds is not None and seconds <= stall:
        options = project.spelled("broker_transport_options")
        yield found(
            options, options=options, seconds=seconds, stall=stall, twice=2 * stall
        )


@rule(
    "W032",
    title="a lease that is too short or too long",
    says="UNSTUCK['LEASE_SECONDS'] = {seconds:g}: {problem}.",
    remedy="Use something from 2 to 60; 5 is the default.",
)
def leases_that_do_not_fit(project: Project) -> Iterator[Found]:
    """W032: on Redis Streams, where a node without a lease is taken for dead."""
    seconds = conf.current().lease_seconds
    if not project.keeps_leases:
        return
    if seconds < SHORTEST_LEASE:
        problem = (
            "a busy host is taken for a dead one, and its tasks run elsewhere, too"
        )
        yield found("UNSTUCK", seconds=seconds, problem=problem)
    elif seconds > LONGEST_LEASE:
        problem = "the tasks of a dead host wait for so long"
        yield found("UNSTUCK", seconds=seconds, problem=problem)


@rule(
    "W033",
    title="no time limit in force",
    says="{shown}: {tasks} may run for ever, and keep their process for as long.",
    remedy="Remove it for the default of 300 s, and give long tasks a time_limit of their own.",
)
def tasks_without_a_limit(project: Project) -> Iterator[Found]:
    """W033: the project has taken our default away."""
    unlimited = [view.name for view in project.tasks if not view.task.time_limit]
    if not project.conf.task_time_limit and unlimited:
        more = f" and {len(unlimited) - 1} more tasks" if unlimited[1:] else ""
        key = project.spelled(HARD)
        yield found(key, shown=project.shown(HARD), tasks=f"{unlimited[0]}{more}")


@rule(
    "W025",
    title="a pool that does not keep time limits",
    says="{shown}: this pool {problem}.",
    remedy="Remove it for the default pool, or use threads, whose limits unstuck keeps.",
)
def pools_without_limits(project: Project) -> Iterator[Found]:
    """W025: the limits are set and nothing enforces them."""
    pool = str(project.conf.worker_pool)
    problems = {
        "gevent": "raises no soft limit, and a hard limit only where the task gives way",
        "eventlet": "knows no time limits at all",
    }
    for name, problem in problems.items():
        if name in pool:
            key = project.spelled("worker_pool")
            yield found(key, shown=project.shown("worker_pool"), problem=problem)


@rule(
    "W050",
    title="a broker or a result store that is waited for without end",
    says="{key} = {value}: against a server that does not answer, {who} waits for ever.",
    remedy="Give a number of seconds, or remove it for the default of unstuck.",
)
def waits_without_end(project: Project) -> Iterator[Found]:
    """W050: the project has taken our timeouts away."""
    for name in ("broker_connection_timeout", "broker_pool_acquire_timeout"):
        if project.conf[name] is None:
            key = project.spelled(name)
            yield found(key, key=key, value=None, who="every .delay()")
    options = project.spelled("broker_transport_options")
    for name, value in project.broker_options.items():
        is_bound = name.endswith("_timeout") and name != "visibility_timeout"
        if is_bound and value is None:
            key = f"{options}[{name!r}]"
            yield found(options, key=key, value=None, who="every .delay()")
    if "redis" in str(project.conf.result_backend):
        for name in ("redis_socket_timeout", "redis_socket_connect_timeout"):
            if project.conf[name] is None:
                key = project.spelled(name)
                yield found(key, key=key, value=None, who="every .delay()")


def _waits(project: Project) -> Iterator[tuple[str, str, float]]:
    for view in project.tasks:
        delay = view.task.default_retry_delay
        if "default_retry_delay" in view.options and isinstance(delay, (int, float)):
            yield view.name, f"{view.name} has default_retry_delay={delay!r}", delay
        yield from _waits_in_source(view)
    for name, entry in project.beat.items():
        options = entry.get("options") if isinstance(entry, dict) else None
        wait = options.get("countdown") if isinstance(options, dict) else None
        if isinstance(wait, (int, float)):
            yield f"beat: {name}", f"The beat entry {name} has countdown={wait!r}", wait


def _waits_in_source(view: TaskView) -> Iterator[tuple[str, str, float]]:
    for call in view.calls:
        wait = number_in(call.keywords.get("countdown"))
        if wait is not None and call.name.endswith(DELAYING):
            where = view.at(call.line)
            yield (
                view.name,
                f"The task {view.name} has countdown={wait:g} ({where})",
                wait,
            )
