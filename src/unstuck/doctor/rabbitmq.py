"""Rules for a broker that is a RabbitMQ."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from unstuck.doctor.facts import Queue, Seen
from unstuck.doctor.rule import Found, Level, found, rule
from unstuck.doctor.words import mib, version_of
from unstuck.rabbit.server import SINCE


@rule(
    "D020",
    Level.WARNING,
    title="a RabbitMQ that is too old",
    says="The broker is RabbitMQ {version}; quorum queues can do what tasks need since 3.10.",
    why="Queues are made as classic ones, and what the broker drops does not become a dead "
    "letter.",
    remedy="Upgrade it, to 3.13 or 4.1 for example",
)
def too_old(seen: Seen) -> Iterator[Found]:
    """D020: used as Celery uses it."""
    if (rabbit := seen.rabbit) and version_of(rabbit.version) < SINCE:
        yield found("broker", version=rabbit.version)


@rule(
    "D021",
    Level.WARNING,
    title="a classic queue",
    says="The queue {queue} is a {kind} queue.",
    why="It is on one node of the broker alone: with that node's disk, all that waits in it "
    "is lost. What the broker drops from it is gone without a dead letter.",
    remedy="`rabbitmqctl delete_queue -p {vhost} {queue} --if-empty`, with all workers "
    "stopped, and start them: docs/rabbitmq.md#from-classic-to-quorum",
)
def classic(seen: Seen) -> Iterator[Found]:
    """D021: mostly one that stock Celery has made."""
    for queue in seen.queues:
        if queue.kind not in (None, "quorum"):
            yield _of(seen, queue, kind=queue.kind)


@rule(
    "D022",
    Level.ERROR,
    title="a queue whose messages expire",
    says="Messages in {queue} are dropped after {seconds:g} s ({who}).",
    why="A task that waits longer, for a busy or a stopped worker, is gone, and nobody is "
    "told: nothing leads what is dropped to the dead letters.",
    remedy="{mend}",
)
def expiring_messages(seen: Seen) -> Iterator[Found]:
    """D022: message-ttl, without a dead letter exchange."""
    for queue in _losing(seen, "message-ttl"):
        seconds = _number(queue, "message-ttl") / 1000
        yield _of_definition(seen, queue, "message-ttl", seconds=seconds)


@rule(
    "D023",
    Level.ERROR,
    title="a queue that drops what is too much",
    says="{queue} holds at most {most} ({who}), and drops the oldest for a new one.",
    why="With more than that waiting, tasks are gone, and nobody is told: nothing leads "
    "what is dropped to the dead letters.",
    remedy="{mend}",
)
def bounded(seen: Seen) -> Iterator[Found]:
    """D023: max-length, without a dead letter exchange, and not refusing instead."""
    for name, unit in (("max-length", "messages"), ("max-length-bytes", "bytes")):
        for queue in _losing(seen, name):
            if not str(queue.definition.get("overflow", "")).startswith("reject"):
                most = f"{_number(queue, name):g} {unit}"
                yield _of_definition(seen, queue, name, most=most)


@rule(
    "D024",
    Level.ERROR,
    title="a queue that is deleted when nobody reads it",
    says="{queue} is deleted after {seconds:g} s without a consumer ({who}).",
    why="After a longer stop of all its workers it is gone, with all that waited in it.",
    remedy="{mend}",
)
def expiring_queues(seen: Seen) -> Iterator[Found]:
    """D024: expires, by an argument or a policy."""
    for queue in seen.queues:
        if "expires" in queue.definition:
            seconds = _number(queue, "expires") / 1000
            yield _of_definition(seen, queue, "expires", seconds=seconds)


@rule(
    "D025",
    Level.ERROR,
    title="a broker that takes no messages",
    says="RabbitMQ has raised an alarm: {alarm}.",
    why="It blocks everybody who publishes: `delay()` fails, and workers can neither retry "
    "nor bury.",
    remedy="`rabbitmqctl status`, which shows memory and disk; free some, or raise "
    "vm_memory_high_watermark, or lower disk_free_limit",
)
def alarms(seen: Seen) -> Iterator[Found]:
    """D025: of memory or of the disk."""
    for alarm in seen.rabbit.alarms if seen.rabbit else ():
        yield found("broker", alarm=alarm)


@rule(
    "D026",
    Level.WARNING,
    title="a RabbitMQ whose memory is nearly full",
    says="RabbitMQ has {used} of {most} in use ({of}).",
    why="At the limit it blocks everybody who publishes.",
    remedy="`python manage.py unstuck status`, to see what waits; then more workers, or "
    "`rabbitmqctl set_vm_memory_high_watermark SHARE`",
)
def nearly_full(seen: Seen) -> Iterator[Found]:
    """D026: a while before the alarm."""
    for memory in seen.rabbit.memory if seen.rabbit else ():
        if memory.is_nearly_full and memory.used < memory.most:
            used, most = mib(memory.used), mib(memory.most)
            yield found("broker", used=used, most=most, of=memory.of)


def consumer_timeout(queue: Queue) -> float | None:
    """After how many seconds a consumer must have acknowledged, where that is known."""
    if "consumer-timeout" in queue.definition:
        return _number(queue, "consumer-timeout") / 1000
    return None


def _losing(seen: Seen, name: str) -> Iterator[Queue]:
    """Queues of which this drops messages that then are nowhere."""
    for queue in seen.queues:
        if name in queue.definition and "dead-letter-exchange" not in queue.definition:
            yield queue


def _number(queue: Queue, name: str) -> float:
    return float(str(queue.definition[name]))


def _of_definition(seen: Seen, queue: Queue, name: str, **facts: Any) -> Found:
    """With who says that part of what is in force, and what takes it away."""
    vhost = shlex.quote(_vhost(seen))
    policies = {} if name in queue.arguments else queue.policies
    who = [f"{kind.replace('_', ' ')} {each!r}" for kind, each in policies.items()]
    mends = [
        f"`rabbitmqctl clear_{kind} -p {vhost} {shlex.quote(each)}`"
        for kind, each in policies.items()
    ]
    deleting = (
        f"rabbitmqctl delete_queue -p {vhost} {shlex.quote(queue.name)} --if-empty"
    )
    return _of(
        seen,
        queue,
        who=" and ".join(who) or "an argument of the queue",
        mend=" and ".join(mends)
        or f"`{deleting}`, and declare it without the argument",
        **facts,
    )


def _of(seen: Seen, queue: Queue, **facts: Any) -> Found:
    return found(queue.name, queue=queue.name, vhost=_vhost(seen), **facts)


def _vhost(seen: Seen) -> str:
    return seen.rabbit.vhost if seen.rabbit else "/"
