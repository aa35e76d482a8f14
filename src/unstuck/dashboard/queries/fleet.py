"""What the fleet's metrics say: nodes, queues, letters, all from the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import chain

from django.db.models import Count

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.dashboard.paging import MOST_COUNTED
from unstuck.dashboard.queries import attention, queues, running
from unstuck.dashboard.queries.letters import by_reason
from unstuck.dashboard.reading import Parts
from unstuck.metrics.family import Family, Kind, Point, Reading
from unstuck.models import Incident, Node
from unstuck.selection import letters

MOST_NODES = 5_000
MOST_QUEUES = 500

Values = Mapping[tuple[str, ...], float | None]
Found = Iterator[tuple[Family, Values]]


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"unstuck_fleet_{name}", Kind.GAUGE, text, labels)


READ = _gauge(
    "read", "Whether the database has told this part; others are left out.", "part"
)
NODES = _gauge("nodes", "Nodes that have not said goodbye, by state.", "state")
SLOTS = _gauge("slots", "How many tasks the nodes that are ready may run at once.")
LAG = _gauge(
    "recorder_lag_seconds",
    "How long the oldest fact that is not stored has waited, on the node that is last.",
)
LED = _gauge(
    "led", "Whether some recorder does the chores: counting, alerts, retention."
)
COUNTED = _gauge(
    "queues_counted_timestamp_seconds", "When the leader has counted the queues last."
)
WAITING = _gauge("queue_waiting", "Messages that no node has.", "queue")
OLDEST = _gauge(
    "queue_oldest_seconds", "How long the first of them has waited, if known.", "queue"
)
RESERVED = _gauge("queue_reserved", "Messages that nodes have in hand.", "queue")
DELAYED = _gauge("queue_delayed", "Messages whose time has not come.", "queue")
CONSUMERS = _gauge("queue_consumers", "Consumers as the broker counts them.", "queue")
SERVED = _gauge("queue_nodes", "Nodes that are well and consume the queue.", "queue")
LETTERS = _gauge(
    "letters",
    f"Dead letters that were not replayed, by reason: of the newest {MOST_COUNTED:,}.",
    "reason",
)
RUNS = _gauge(
    "long_runs",
    "Tasks that have run for seconds, by level: fine, late (beyond the soft limit), "
    "over (beyond the hard one).",
    "level",
)
OUTBOX = _gauge(
    "outbox_overdue", f"Messages overdue in the outbox; {MOST_COUNTED:,} are all."
)
INCIDENTS = _gauge("incidents_open", "Incidents that last, by kind.", "kind")

STATES = ("starting", "ready", "stopping", "lost")
LEVELS = ("fine", "late", "over")

FAMILIES = (
    *(READ, NODES, SLOTS, LAG, LED, COUNTED, WAITING, OLDEST, RESERVED, DELAYED),
    *(CONSUMERS, SERVED, LETTERS, RUNS, OUTBOX, INCIDENTS),
)


def readings(dead: str) -> list[Reading]:
    """Everything that the database tells in time. ``dead`` is the queue of the letters.

    Raises ``NotRead`` when there is no database to ask.
    """
    parts, now = Parts(), system_clock()
    asked: Mapping[str, Callable[[], list[tuple[Family, Values]]]] = {
        "nodes": lambda: list(_nodes()),
        "queues": lambda: list(_queues(now, dead)),
        "letters": lambda: [(LETTERS, _letters())],
        "runs": lambda: [(RUNS, _runs())],
        "outbox": lambda: [(OUTBOX, {(): attention.overdue_messages().number})],
        "incidents": lambda: [(INCIDENTS, _incidents())],
    }
    told = {name: parts.read(ask).value for name, ask in asked.items()}
    read: Values = {(name,): value is not None for name, value in told.items()}
    found = chain.from_iterable(value for value in told.values() if value)
    return [_reading(family, values) for family, values in ((READ, read), *found)]


def _reading(family: Family, values: Values) -> Reading:
    points = [Point(by, value) for by, value in values.items() if value is not None]
    return Reading(family, family.labels, points)


def _nodes() -> Found:
    known = Node.objects.using(conf.current().database).exclude(state="gone")
    fields = ("state", "seen_at", "concurrency", "facts_lag_seconds")
    nodes = list(known.only(*fields).order_by("-seen_at")[:MOST_NODES])
    states = Counter(node.condition for node in nodes)
    ready = [node for node in nodes if node.condition == "ready"]
    yield NODES, {(state,): states[state] for state in STATES}
    yield SLOTS, {(): sum(node.concurrency for node in ready)}
    yield LAG, {(): max((node.facts_lag_seconds for node in ready), default=0.0)}


def _queues(now: datetime, dead: str) -> Found:
    found = queues.queues(now, dead)
    rows = found.rows[:MOST_QUEUES]
    yield LED, {(): bool(found.leader)}
    yield COUNTED, {(): found.at.timestamp() if found.at else None}
    yield WAITING, {(row.name,): row.sample.waiting for row in rows}
    yield OLDEST, {(row.name,): row.sample.oldest_seconds for row in rows}
    yield RESERVED, {(row.name,): row.sample.reserved for row in rows}
    yield DELAYED, {(row.name,): row.sample.delayed for row in rows}
    yield CONSUMERS, {(row.name,): row.consumers for row in rows}
    # Letters are taken by recorders, which are no consumers that a node would name.
    yield SERVED, {(row.name,): len(row.nodes) for row in rows if not row.is_dead}


def _letters() -> Values:
    counts, _ = by_reason(letters().filter(replayed_at__isnull=True))
    return {(reason.value,): counts.get(reason.value, 0) for reason in Reason}


def _runs() -> Values:
    runs = [run for run in running.running().runs if not run.is_lost]
    levels = Counter(run.level for run in runs)
    return {(level,): levels[level] for level in LEVELS}


def _incidents() -> Values:
    stored = Incident.objects.using(conf.current().database).order_by()
    open_ = stored.filter(kind__in=Incident.LASTING, resolved_at__isnull=True)
    counts = dict(open_.values_list("kind").annotate(Count("pk")))
    return {(kind,): counts.get(kind, 0) for kind in Incident.LASTING}
