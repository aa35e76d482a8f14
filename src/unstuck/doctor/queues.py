"""Rules for who reads which queue."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from unstuck.doctor.facts import Part, Queue, Seen
from unstuck.doctor.rule import Found, Level, found, rule

START = "`celery -A {app} worker -Q {queue}`"


@rule(
    "D030",
    Level.ERROR,
    title="a queue in which messages wait and that nobody reads",
    says="No worker reads {queue}, in which messages wait: {waiting}.",
    why="They wait until one does, for ever if need be.",
    remedy=START,
)
def unread(seen: Seen) -> Iterator[Found]:
    """D030."""
    for queue in _without_consumers(seen):
        if queue.waiting:
            yield _of(seen, queue, waiting=queue.waiting)


@rule(
    "D031",
    Level.WARNING,
    title="a queue that nobody reads",
    says="No worker reads {queue}; nothing waits there yet.",
    why="What is sent to it waits until one does.",
    remedy=START + "; if nothing sends to it any more, take it out of the settings",
)
def unread_and_empty(seen: Seen) -> Iterator[Found]:
    """D031: before there is harm."""
    for queue in _without_consumers(seen):
        if not queue.waiting:
            yield _of(seen, queue)


@rule(
    "D032",
    Level.WARNING,
    title="a worker that reads a queue to which nothing sends",
    says="{node} reads {queue}, to which nothing in this project sends.",
    why="Mostly it is misspelt, and the queue that was meant has a worker less, or none.",
    remedy="`celery -A {app} worker -Q …`, with the name that was meant; known are: {known}",
)
def reads_the_wrong_queue(seen: Seen) -> Iterator[Found]:
    """D032: Celery makes a queue of any name that it is told."""
    known = seen.here.queues | seen.here.sent_to
    for node in seen.nodes:
        for queue in sorted(node.queues - known):
            yield found(
                node.name,
                since=node.started_at,
                node=node.name,
                queue=queue,
                app=seen.here.app,
                known=", ".join(sorted(known)),
            )


def _without_consumers(seen: Seen) -> Iterator[Queue]:
    """Those of which the broker, or all the nodes, say so."""
    read = {queue for node in seen.nodes for queue in node.queues}
    for queue in seen.queues:
        if queue.name == seen.here.letters or queue.name in read or queue.consumers:
            continue
        if queue.consumers is None and _somebody_may_read(seen):
            continue
        yield queue


def _somebody_may_read(seen: Seen) -> bool:
    """Whether there are workers that did not say what they read."""
    if Part.NODES in seen.unasked or seen.foreign:
        return True
    heard = {node.name for node in seen.nodes}
    rows = seen.archive.nodes if seen.archive else ()
    return any(not row.is_lost and row.name not in heard for row in rows)


def _of(seen: Seen, queue: Queue, **facts: object) -> Found:
    since = _last_read(seen, queue.name)
    return found(queue.name, since=since, queue=queue.name, app=seen.here.app, **facts)


def _last_read(seen: Seen, queue: str) -> datetime | None:
    rows = seen.archive.nodes if seen.archive else ()
    return max((row.seen_at for row in rows if queue in row.queues), default=None)
