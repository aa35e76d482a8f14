"""Rules for what could not be asked: it is said, and never passed as fine."""

from __future__ import annotations

from collections.abc import Iterator

from unstuck.doctor.facts import Part, Seen
from unstuck.doctor.rule import Found, Level, found, rule


def _why(seen: Seen, part: Part, subject: str) -> Iterator[Found]:
    if part in seen.unasked:
        yield found(subject, reason=seen.unasked[part], app=seen.here.app)


@rule(
    "D001",
    Level.NOT_ASKED,
    title="the broker",
    says="The broker could not be asked: {reason}.",
    why="Its version, memory, persistence, policies and queues are not known. If workers do "
    "not reach it either, no task runs.",
    remedy="`celery -A {app} inspect ping`, from here and from a worker's host",
)
def broker(seen: Seen) -> Iterator[Found]:
    """D001: it is away, refuses us, or is of a kind that cannot be asked."""
    yield from _why(seen, Part.BROKER, "broker")


@rule(
    "D002",
    Level.NOT_ASKED,
    title="policies, alarms and memory of RabbitMQ",
    says="RabbitMQ's management API could not be asked: {reason}.",
    why="AMQP does not tell which policies hold for a queue, such as a TTL that drops "
    "messages, nor how much memory and disk the broker has left.",
    remedy="`rabbitmq-plugins enable rabbitmq_management`, and a user with the tag "
    "'monitoring'; --rabbitmq-api URL if it is elsewhere. Or silence unstuck.D002",
)
def management(seen: Seen) -> Iterator[Found]:
    """D002: the plugin is off, elsewhere, or for other users."""
    yield from _why(seen, Part.MANAGEMENT, "broker")


@rule(
    "D003",
    Level.NOT_ASKED,
    title="the database",
    says="The database {alias!r} could not be asked: {reason}.",
    why="Whether it has our tables, and what they say of nodes, runs and dead letters, is "
    "not known. While it is away, letters wait on the broker; nothing is lost.",
    remedy="`python manage.py dbshell --database {alias}`",
)
def database(seen: Seen) -> Iterator[Found]:
    """D003: it is away or refuses us."""
    if Part.DATABASE in seen.unasked:
        alias = seen.here.database
        yield found("database", reason=seen.unasked[Part.DATABASE], alias=alias)


@rule(
    "D004",
    Level.NOT_ASKED,
    title="what the archive tells",
    says="The archive could not be read: {reason}.",
    why="Lost nodes, the longest runs, how letters grow and whether the recorders keep up "
    "are not known.",
    remedy="`python manage.py migrate unstuck --database {alias}`",
)
def archive(seen: Seen) -> Iterator[Found]:
    """D004: the database answers, and our tables do not."""
    if Part.ARCHIVE in seen.unasked:
        alias = seen.here.database
        yield found("database", reason=seen.unasked[Part.ARCHIVE], alias=alias)


@rule(
    "D005",
    Level.NOT_ASKED,
    title="the nodes, none of which answered",
    says="No worker was heard: {reason}.",
    why="Their settings, versions, clocks, queues and hosts are not known. If there are "
    "none, no task runs.",
    remedy="`celery -A {app} worker`; for those that run, `celery -A {app} inspect ping`",
)
def nodes(seen: Seen) -> Iterator[Found]:
    """D005: there is none, or the broker does not carry the question."""
    yield from _why(seen, Part.NODES, "nodes")


@rule(
    "D006",
    Level.NOT_ASKED,
    title="a node that is there and did not answer",
    says="{node} was seen {ago:.0f} s ago and did not answer.",
    why="Its settings, versions, clock and host are not known. A main that hangs is "
    "replaced by its supervisor; a solo worker answers between two tasks.",
    remedy="`unstuck probe working --node {node}`, on {host}",
)
def silent_nodes(seen: Seen) -> Iterator[Found]:
    """D006: its recorder writes, and its main does not answer."""
    heard = {node.name for node in seen.nodes} | set(seen.foreign)
    if Part.NODES in seen.unasked or seen.archive is None:
        return
    for row in seen.archive.nodes:
        if not row.is_lost and row.name not in heard:
            ago = (seen.now - row.seen_at).total_seconds()
            yield found(
                row.name, since=row.seen_at, node=row.name, ago=ago, host=row.host
            )


@rule(
    "D007",
    Level.NOT_ASKED,
    title="a node that does not understand the question",
    says="{node} answered {answer}.",
    why="It runs an older unstuck, or Celery's own worker, whose tasks nobody guards: what "
    "it does with a killed or failed task is not what your other workers do.",
    remedy="`pip install --upgrade unstuck`, where it runs; import Celery from unstuck there, "
    "and start it again",
)
def foreign_nodes(seen: Seen) -> Iterator[Found]:
    """D007: worth more than a guess, as it takes tasks from the same queues."""
    for node, answer in sorted(seen.foreign.items()):
        yield found(node, node=node, answer=answer)


@rule(
    "D008",
    Level.NOT_ASKED,
    title="what Redis saves, and when",
    says="Redis does not tell when it writes snapshots: {reason}.",
    why="It writes no append-only file, so snapshots are all that a restart brings back; "
    "without them every message that waits is lost.",
    remedy="`redis-cli -u {where} ACL SETUSER USER +config|get`, or ask whoever runs it and "
    "silence unstuck.D008",
)
def saving(seen: Seen) -> Iterator[Found]:
    """D008: an ACL, or a provider, forbids the question. An append-only file answers it."""
    if seen.redis and Part.SAVING in seen.unasked and not seen.redis.append_only:
        reason = seen.unasked[Part.SAVING]
        yield found("broker", reason=reason, where=seen.redis.where)


@rule(
    "D027",
    Level.NOT_ASKED,
    title="what Redis does when its memory is full",
    says="Redis does not tell how its memory is: {reason}.",
    why="When it is full, messages may be evicted in silence, or `delay()` raises.",
    remedy="`redis-cli -u {where} INFO memory`, or ask whoever runs it and silence unstuck.D027",
)
def memory(seen: Seen) -> Iterator[Found]:
    """D027: a proxy, or a service that only speaks Redis."""
    if seen.redis and Part.MEMORY in seen.unasked:
        reason = seen.unasked[Part.MEMORY]
        yield found("broker", reason=reason, where=seen.redis.where)
