"""What was seen: plain facts, without a judgement.

``None`` is what was not told. A part that could not be asked at all is named in
``Seen.unasked``, with the reason: nobody may take its silence for good news.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from unstuck.core.limits import Limits

NEARLY_FULL = 0.9
"""Of a broker's memory."""


class Part(StrEnum):
    """What can be asked, or not."""

    BROKER = "broker"
    MANAGEMENT = "management"
    SAVING = "saving"
    MEMORY = "memory"
    DATABASE = "database"
    ARCHIVE = "archive"
    NODES = "nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What a process of the project is made of: this one, or a node."""

    versions: Mapping[str, str]
    settings: Mapping[str, str]
    """Each as it may be shown."""

    tasks: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The project as this process knows it."""

    code: Code
    app: str
    """What ``celery -A`` is given."""

    limits: Mapping[str, Limits]
    """By task."""

    queues: frozenset[str]
    """Those that workers consume who are not told otherwise."""

    sent_to: frozenset[str]
    """Those that something in the project sends to."""

    goes_to: Mapping[str, str]
    """By task: the queue that it is sent to, where that can be seen."""

    letters: str
    """The queue of the dead letters."""

    given_away_after: float | None
    """Seconds until the broker gives a message in hand to another worker."""

    shutdown_seconds: float
    database: str
    """The alias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How much of it there may be, and how much there is, in bytes."""

    used: int
    most: int
    of: str
    """What sets the limit."""

    @property
    def is_nearly_full(self) -> bool:
        """Never so when nobody tells how much there may be."""
        return 0 < NEARLY_FULL * self.most < self.used


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """A Redis or Valkey that is the broker."""

    where: str
    """Its URL, without what is secret."""

    program: str
    version: str
    started_at: datetime
    policy: str
    memory: Memory
    evicted: int
    role: str
    append_only: bool
    save: str | None
    """When it writes snapshots; ``None`` when it does not tell."""

    saved_at: datetime
    failing: tuple[str, ...]
    """What of its persistence failed last."""

    clients: int
    most_clients: int | None
    skew: float | None
    """Seconds by which its clock is ahead of ours, at the least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue of this project on the broker."""

    name: str
    waiting: int | None
    """``None``: there is no such queue."""

    consumers: int | None
    kind: str | None = None
    """``classic``, ``quorum``, …, on RabbitMQ."""

    definition: Mapping[str, object] = field(default_factory=dict)
    """What is in force of its arguments and its policies, by the names of policies."""

    arguments: frozenset[str] = frozenset()
    """What of it no policy says."""

    policies: Mapping[str, str] = field(default_factory=dict)
    """The kind of policy (``policy``, ``operator_policy``) and its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rabbit:
    """A RabbitMQ that is the broker."""

    where: str
    vhost: str
    version: str
    memory: tuple[Memory, ...] = ()
    """Of each of its nodes."""

    alarms: tuple[str, ...] = ()
    skew: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The database of our tables."""

    vendor: str
    unapplied: tuple[str, ...]
    ahead: tuple[str, ...]
    """Migrations that it has and this code has not."""

    missing: tuple[str, ...]
    """Tables that are not there."""

    skew: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the archive knows of a node that has not said goodbye."""

    name: str
    host: str
    started_at: datetime
    seen_at: datetime
    is_lost: bool
    queues: tuple[str, ...]
    lag_seconds: float
    missing_facts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Longest:
    """The longest run of a task from a queue lately."""

    task: str
    queue: str
    """Empty if nobody knows."""

    seconds: float
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """How many came to be archived."""

    last_hour: int
    day_before: int
    first: datetime | None
    """When the first of the last hour was archived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What our tables tell."""

    nodes: tuple[Row, ...]
    longest: tuple[Longest, ...]
    letters: Letters
    letters_wait_since: datetime | None
    """Since when letters wait on the broker, if it is for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process1:
    """What is process 1 where a node runs."""

    command: str
    is_first: bool
    """Whether the node's own first process is it."""

    is_above: bool
    """Whether the node's first process descends from it."""

    hears_sigterm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """Of the process of a node that has the fewest left."""

    pid: int
    used: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory that a node may have, and what its children could come to need."""

    limit: int
    slots: int
    base: int
    """What its first process has, which the children share."""

    child: int
    """What a child may have, or had at most."""

    is_set: bool
    """Whether ``child`` is what --max-memory-per-child says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What a node said of itself."""

    name: str
    code: Code
    started_at: datetime
    queues: frozenset[str]
    """Those that it consumes now."""

    skew: float
    host: str
    collects_strangers: bool
    """Whether its first process reaps whatever ends below it."""

    process1: Process1 | None
    descriptors: Descriptors | None
    room: Room | None
    threads: tuple[str, ...]
    """Those that were there before it forked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All of it."""

    now: datetime
    here: Here
    unasked: Mapping[Part, str] = field(default_factory=dict)
    """Which part could not be asked, and why."""

    redis: Redis | None = None
    rabbit: Rabbit | None = None
    queues: tuple[Queue, ...] = ()
    database: Database | None = None
    archive: Archive | None = None
    nodes: tuple[Node, ...] = ()
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Nodes that answered something else, and what."""
