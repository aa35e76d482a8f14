"""What ``/metrics`` of a node says: read from the board, as probes are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from unstuck.metrics import tasks
from unstuck.metrics.family import Family, Kind, Point, Reading
from unstuck.metrics.tally import Tally
from unstuck.pool import proc
from unstuck.pool.board import (
    MAIN,
    PROBES,
    RECORDER,
    SUPERVISOR,
    Board,
    Column,
)
from unstuck.probes.judge import NOT_WELL, State, state_of
from unstuck.probes.snapshot import About, Snapshot, take

PROCESSES: Mapping[str, int] = {
    "supervisor": SUPERVISOR,
    "main": MAIN,
    "recorder": RECORDER,
    "probes": PROBES,
}

Value = float | None
Values = Mapping[tuple[str, ...], Value]
"""By the values of the labels; ``None`` is not known, and not said."""


@dataclass(frozen=True)
class Seen:
    """A node at one moment."""

    board: Board
    about: About

    @property
    def tally(self) -> Tally:
        """What it has counted."""
        return self.board.tally

    @cached_property
    def now(self) -> Snapshot:
        """How it is."""
        return take(self.board)

    @cached_property
    def state(self) -> State:
        """What it is found in."""
        return state_of(self.now, self.about)


Reader = Callable[[Seen], Value | Values]


def readings(board: Board, about: About) -> Iterator[Reading]:
    """Everything, from the node as a whole to its tasks."""
    seen = Seen(board, about)
    for family, read in TABLE:
        value = read(seen)
        found = value if isinstance(value, Mapping) else {(): value}
        points = [Point(by, value) for by, value in found.items() if value is not None]
        yield Reading(family, family.labels, points)
    yield from tasks.readings(seen.tally, about.tier)


def _counted(what: str) -> Reader:
    """What the processes of the node have counted."""
    return lambda seen: {
        (label,) if label else (): count
        for label, count in seen.tally.total(what).items()
    }


def _main(column: Column) -> Reader:
    return lambda seen: seen.board.row(MAIN)[column]


def _silence(seen: Seen) -> Values:
    rows = {name: seen.board.row(row) for name, row in PROCESSES.items()}
    return {
        (name,): row.silent_seconds() for name, row in rows.items() if row[Column.PID]
    }


def _memory(seen: Seen) -> Values:
    """Of the processes that are there; that of the children together."""
    pids = {name: [seen.board.row(row)[Column.PID]] for name, row in PROCESSES.items()}
    pids["children"] = seen.board.children()
    return {(name,): _rss(each) for name, each in pids.items()}


def _rss(pids: Iterable[int]) -> Value:
    known = [rss for pid in pids if pid and (rss := proc.rss_of(pid)) is not None]
    return sum(known) if known else None


def _states(seen: Seen) -> Values:
    return {(state.value,): state is seen.state for state in State}


def _wells(seen: Seen) -> Values:
    return {(probe.value,): seen.state not in bad for probe, bad in NOT_WELL.items()}


def _info(*names: str) -> Reader:
    return lambda seen: {tuple(seen.about.info.get(name, "") for name in names): 1}


def _spare(seen: Seen) -> Value:
    return max(0, seen.now.serving - seen.now.slots)


def _away(seen: Seen) -> Value:
    return seen.now.broker_away_for or 0.0


def _database_away(seen: Seen) -> Value:
    return seen.now.database_away_for or 0.0


def _lag(seen: Seen) -> Value:
    row = seen.board.row(RECORDER)
    return row[Column.LAG] / 1e9 if row[Column.PID] else None


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"unstuck_{name}", Kind.GAUGE, text, labels)


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(f"unstuck_{name}_total", Kind.COUNTER, text, labels)


VERSIONS = ("version", "python", "celery", "django")
NODE = ("node", "pool", "release")

TABLE: tuple[tuple[Family, Reader], ...] = (
    (
        _gauge("build_info", "Always 1: the versions of this node.", *VERSIONS),
        _info(*VERSIONS),
    ),
    (
        _gauge("node_info", "Always 1: which node this is.", *NODE),
        _info(*NODE),
    ),
    (
        _gauge(
            "node_started_timestamp_seconds",
            "When the node started. Its counters began then, and outlive its processes.",
        ),
        lambda seen: seen.about.started_at,
    ),
    (
        _gauge("node_well", "What the probes answer: 1 is well.", "probe"),
        _wells,
    ),
    (
        _gauge(
            "node_state",
            "The state that the node is in is 1, all others are 0.",
            "state",
        ),
        _states,
    ),
    (
        _gauge("slots", "How many tasks may run at once."),
        lambda seen: seen.now.slots,
    ),
    (
        _gauge("slots_free", "How many more tasks could begin now."),
        lambda seen: seen.now.free,
    ),
    (
        _gauge("children", "Processes, or threads, that are up to run tasks."),
        lambda seen: seen.now.serving,
    ),
    (
        _gauge("children_spare", "Those of them that are more than there are slots."),
        _spare,
    ),
    (
        _counter("children_ended", "Children that have ended, by cause.", "cause"),
        _counted("children"),
    ),
    (
        _gauge("tasks_running", "Tasks that a child has begun with."),
        _main(Column.RUNNING),
    ),
    (
        _gauge(
            "tasks_reserved",
            "Tasks that were taken from their queue and have not begun; those that wait "
            "for their time are not counted.",
        ),
        _main(Column.RESERVED),
    ),
    (
        _gauge("longest_run_seconds", "How long the task that runs longest has run."),
        lambda seen: seen.now.longest_for or 0.0,
    ),
    (
        _gauge("messages_waiting", "Messages in the queues that this node consumes."),
        lambda seen: seen.now.waiting,
    ),
    (_counter("messages_taken", "Messages that came in."), _counted("taken")),
    (
        _counter("task_put_offs", "Tasks that were put off, as their lock was busy."),
        _counted("put_off"),
    ),
    (
        _counter(
            "task_strikes",
            "Processes and nodes that were lost under a message and count against it.",
        ),
        _counted("strikes"),
    ),
    (
        _gauge("broker_connected", "Whether the consumer believes it is connected."),
        lambda seen: seen.now.connected,
    ),
    (
        _gauge("broker_away_seconds", "For how long the broker has not answered."),
        _away,
    ),
    (
        _gauge("deaf_seconds", "For how long messages wait and none is taken."),
        lambda seen: seen.now.deaf_for or 0.0,
    ),
    (
        _gauge(
            "database_away_seconds",
            "For how long the database does not take what the recorder writes.",
        ),
        _database_away,
    ),
    (
        _gauge(
            "recorder_lag_seconds",
            "How long the oldest fact that is not stored has waited.",
        ),
        _lag,
    ),
    (
        _counter("facts_dropped", "Facts that came faster than they could be stored."),
        _counted("facts_dropped"),
    ),
    (
        _counter("facts_left_out", "Facts that no database takes."),
        _counted("facts_left_out"),
    ),
    (
        _counter("chores_failed", "Chores of the fleet that failed here."),
        _counted("chores_failed"),
    ),
    (
        _gauge(
            "process_silent_seconds",
            "How long ago the loop of a process turned last.",
            "process",
        ),
        _silence,
    ),
    (
        _gauge(
            "process_resident_memory_bytes",
            "Resident memory. What processes share is counted in each of them.",
            "process",
        ),
        _memory,
    ),
    (
        _counter("process_restarts", "Processes that were started again.", "process"),
        _counted("restarts"),
    ),
    (
        _counter("incidents", "What happened to the node, by kind.", "kind"),
        _counted("incidents"),
    ),
)
"""What there is, and how it is read."""

FAMILIES = (*(family for family, _ in TABLE), *tasks.FAMILIES)
