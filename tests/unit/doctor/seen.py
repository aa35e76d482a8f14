"""An installation where all is well, and changes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from unstuck.core.limits import Limits
from unstuck.doctor.facts import (
    Archive,
    Code,
    Database,
    Descriptors,
    Here,
    Letters,
    Longest,
    Memory,
    Node,
    Process1,
    Queue,
    Rabbit,
    Redis,
    Room,
    Row,
    Seen,
)

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=3)
GIB = 2**30

CODE = Code(
    versions={"unstuck": "1.0", "release": "7"},
    settings={"task_time_limit": "300"},
    tasks=frozenset({"shop.send", "shop.import"}),
)

HERE = Here(
    code=CODE,
    app="shop",
    limits={"shop.send": Limits(soft=270, hard=300)},
    queues=frozenset({"celery", "media"}),
    sent_to=frozenset({"celery"}),
    goes_to={"shop.send": "celery"},
    letters="unstuck.dead",
    given_away_after=None,
    shutdown_seconds=25,
    database="default",
)

REDIS = Redis(
    where="redis://cache:6379/0",
    program="Valkey",
    version="8.1.0",
    started_at=EARLIER,
    policy="noeviction",
    memory=Memory(used=GIB, most=4 * GIB, of="its maxmemory"),
    evicted=0,
    role="master",
    append_only=True,
    save="",
    saved_at=EARLIER,
    failing=(),
    clients=12,
    most_clients=10_000,
    skew=0.0,
)

RABBIT = Rabbit(
    where="amqp://shop@rabbit:5672//",
    vhost="/",
    version="4.1.2",
    memory=(Memory(used=GIB, most=4 * GIB, of="the limit of rabbit@a"),),
    skew=0.0,
)

DATABASE = Database(vendor="postgresql", unapplied=(), ahead=(), missing=(), skew=0.0)

ROW = Row(
    name="celery@a",
    host="a",
    started_at=EARLIER,
    seen_at=NOW,
    is_lost=False,
    queues=("celery", "media"),
    lag_seconds=0.1,
    missing_facts=0,
)

ARCHIVE = Archive(
    nodes=(ROW,),
    longest=(Longest(task="shop.send", queue="celery", seconds=20.0, at=EARLIER),),
    letters=Letters(last_hour=2, day_before=48, first=EARLIER),
    letters_wait_since=None,
)

NODE = Node(
    name="celery@a",
    code=CODE,
    started_at=EARLIER,
    queues=frozenset({"celery", "media"}),
    skew=0.0,
    host="a",
    collects_strangers=True,
    process1=Process1(
        command="celery worker", is_first=True, is_above=True, hears_sigterm=True
    ),
    descriptors=Descriptors(pid=7, used=40, most=1024),
    room=Room(limit=8 * GIB, slots=4, base=GIB // 8, child=GIB // 4, is_set=False),
    threads=(),
)


def queue(name: str, **known: Any) -> Queue:
    """A queue that is read, and empty."""
    return Queue(**{"name": name, "waiting": 0, "consumers": 1, **known})


QUEUES = (queue("celery"), queue("media"), queue("unstuck.dead", consumers=0))

WELL = Seen(
    now=NOW,
    here=HERE,
    redis=REDIS,
    queues=QUEUES,
    database=DATABASE,
    archive=ARCHIVE,
    nodes=(NODE,),
)

ON_RABBIT = replace(
    WELL,
    redis=None,
    rabbit=RABBIT,
    queues=tuple(
        replace(each, kind="quorum", definition={"dead-letter-exchange": ""})
        for each in QUEUES
    ),
)


def redis(**known: Any) -> Seen:
    """With a Redis that is otherwise."""
    return replace(WELL, redis=replace(REDIS, **known))


def rabbit(**known: Any) -> Seen:
    """With a RabbitMQ that is otherwise."""
    return replace(ON_RABBIT, rabbit=replace(RABBIT, **known))


def on_queue(on: Seen = ON_RABBIT, **known: Any) -> Seen:
    """With the first queue otherwise."""
    return replace(on, queues=(replace(on.queues[0], **known), *on.queues[1:]))


def archive(**known: Any) -> Seen:
    """With an archive that tells something else."""
    return replace(WELL, archive=replace(ARCHIVE, **known))


def row(**known: Any) -> Seen:
    """With another row of the node."""
    return archive(nodes=(replace(ROW, **known),))


def database(**known: Any) -> Seen:
    """With other tables."""
    return replace(WELL, database=replace(DATABASE, **known))


def here(on: Seen = WELL, **known: Any) -> Seen:
    """In another project."""
    return replace(on, here=replace(on.here, **known))


def longest(seconds: float, on: Seen = WELL, queue: str = "celery") -> Seen:
    """With a longest run of so many seconds."""
    run = Longest(task="shop.send", queue=queue, seconds=seconds, at=EARLIER)
    return replace(on, archive=replace(ARCHIVE, longest=(run,)))


def node(**known: Any) -> Seen:
    """With a node that is otherwise."""
    return replace(WELL, nodes=(replace(NODE, **known),))


def two_nodes(**known: Any) -> Seen:
    """With a second node that is otherwise."""
    other = replace(NODE, name="celery@b", **known)
    rows = (ROW, replace(ROW, name="celery@b"))
    return replace(archive(nodes=rows), nodes=(NODE, other))
