"""Rules for a broker that is a Redis or Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from unstuck.doctor.facts import Redis, Seen
from unstuck.doctor.rule import Found, Level, found, rule
from unstuck.doctor.words import mib, version_of

OLDEST = (6, 2)


@rule(
    "D011",
    Level.ERROR,
    title="a Redis that is too old",
    says="The broker is {program} {version}; 6.2 is the oldest that Celery and unstuck know.",
    why="Commands that they need are missing there, or do something else.",
    remedy="Upgrade it, to Valkey 8 or Redis 7.2 for example",
)
def too_old(seen: Seen) -> Iterator[Found]:
    """D011."""
    if (redis := seen.redis) and version_of(redis.version) < OLDEST:
        yield _found(redis, program=redis.program, version=redis.version)


@rule(
    "D012",
    Level.ERROR,
    title="a maxmemory-policy that drops messages",
    says="maxmemory-policy is {policy}.",
    why="When the memory is full, Redis deletes keys to make room: messages, locks, results "
    "and what was in hand vanish, and nobody is told. With noeviction it refuses to write, "
    "which `delay()` says.",
    remedy="`redis-cli -u {where} CONFIG SET maxmemory-policy noeviction`, and the same in "
    "redis.conf",
)
def eviction(seen: Seen) -> Iterator[Found]:
    """D012: also those that take only keys with a TTL, which leases and locks have."""
    if (redis := seen.redis) and redis.policy != "noeviction":
        yield _found(redis, policy=redis.policy)


@rule(
    "D013",
    Level.ERROR,
    title="keys that were evicted",
    says="Redis has evicted {evicted} keys since its start.",
    why="It does not say which: messages may be among them, and are gone.",
    remedy="`redis-cli -u {where} CONFIG SET maxmemory-policy noeviction`; then, to begin "
    "counting anew, CONFIG RESETSTAT",
)
def evicted(seen: Seen) -> Iterator[Found]:
    """D013: what D012 warns of has happened."""
    if (redis := seen.redis) and redis.evicted:
        yield _found(redis, since=redis.started_at, evicted=redis.evicted)


@rule(
    "D014",
    Level.ERROR,
    title="a Redis that saves nothing",
    says="Redis writes neither an append-only file nor snapshots.",
    why="When it restarts, all that waits, all that is in hand and all dead letters that "
    "are not archived are gone.",
    remedy="`redis-cli -u {where} CONFIG SET appendonly yes`, and the same in redis.conf",
)
def saves_nothing(seen: Seen) -> Iterator[Found]:
    """D014."""
    if (redis := seen.redis) and not redis.append_only and redis.save == "":
        yield _found(redis, since=redis.started_at)


@rule(
    "D015",
    Level.WARNING,
    title="a Redis that saves snapshots only",
    says="Redis writes snapshots (save {save!r}) and no append-only file.",
    why="When it crashes, all messages since the last snapshot are lost, and those that "
    "were done since then come again.",
    remedy="`redis-cli -u {where} CONFIG SET appendonly yes`, and the same in redis.conf",
)
def saves_snapshots(seen: Seen) -> Iterator[Found]:
    """D015: since the last one, to be exact."""
    if (redis := seen.redis) and not redis.append_only and redis.save:
        yield _found(redis, since=redis.saved_at, save=redis.save)


@rule(
    "D016",
    Level.ERROR,
    title="a Redis that cannot save",
    says="Redis could not save: {failing}.",
    why="What is not on its disk is lost when it restarts; and by default it refuses to "
    "write after a snapshot that failed, so that every `delay()` raises.",
    remedy="`redis-cli -u {where} INFO persistence`, and see to the disk and the log of the "
    "server",
)
def cannot_save(seen: Seen) -> Iterator[Found]:
    """D016: mostly a disk that is full."""
    if (redis := seen.redis) and redis.failing:
        yield _found(redis, since=redis.saved_at, failing=", ".join(redis.failing))


@rule(
    "D017",
    Level.ERROR,
    title="a Redis whose memory is nearly full",
    says="Redis has {used} of {most} in use ({percent:.0f} % of {of}).",
    why="When it is full, `delay()` raises, or messages are evicted; above the memory of "
    "its host the kernel kills it.",
    remedy="`python manage.py unstuck status`, to see what waits; then more workers, or "
    "`redis-cli -u {where} CONFIG SET maxmemory BYTES`",
)
def nearly_full(seen: Seen) -> Iterator[Found]:
    """D017: of its own limit, else of its host."""
    if (redis := seen.redis) and redis.memory.is_nearly_full:
        memory = redis.memory
        yield _found(
            redis,
            used=mib(memory.used),
            most=mib(memory.most),
            percent=100 * memory.used / memory.most,
            of=memory.of,
        )


@rule(
    "D018",
    Level.ERROR,
    title="a broker that is a replica",
    says="{where} is a replica of another Redis.",
    why="It refuses to write: no task can be sent, taken or acknowledged there.",
    remedy="`redis-cli -u {where} INFO replication`, which names the primary: use its address, "
    "or sentinel:// which finds it",
)
def is_a_replica(seen: Seen) -> Iterator[Found]:
    """D018: after a failover, mostly."""
    if (redis := seen.redis) and redis.role != "master":
        yield _found(redis)


@rule(
    "D019",
    Level.WARNING,
    title="a Redis with nearly as many clients as it takes",
    says="{clients} of {most} clients are connected.",
    why="The next worker or web process that connects is refused.",
    remedy="`redis-cli -u {where} CONFIG SET maxclients {twice}`; CLIENT LIST says who they "
    "are",
)
def many_clients(seen: Seen) -> Iterator[Found]:
    """D019."""
    redis = seen.redis
    if redis and redis.most_clients and redis.clients > 0.9 * redis.most_clients:
        most = redis.most_clients
        yield _found(redis, clients=redis.clients, most=most, twice=2 * most)


def _found(redis: Redis, since: datetime | None = None, **facts: object) -> Found:
    return found("broker", since=since, where=redis.where, **facts)
