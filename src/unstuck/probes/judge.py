"""From a snapshot to an answer: pure. ``docs/probes.md`` has its table.

A node is in one state, the gravest of those that it could be said to be in; each probe
says which of them are not well for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from unstuck.probes.snapshot import About, Snapshot

REPLACE_SECONDS = 10.0
"""How long the supervisor may take, beyond its patience, to replace a main that hangs."""

SILENT_SECONDS = 10.0
"""Silence of main after which nobody should rely on it, long before it is replaced."""

AWAY_SECONDS = 25.0
"""The broker is asked more often than that, and answers or does not within seconds."""


class Probe(StrEnum):
    """What can be asked."""

    LIVE = "live"
    READY = "ready"
    WORKING = "working"


class State(StrEnum):
    """What a node can be found in, the gravest first."""

    SUPERVISOR_STUCK = "supervisor_stuck"
    MAIN_STUCK = "main_stuck"
    STOPPING = "stopping"
    MAIN_DOWN = "main_down"
    BROKER_AWAY = "broker_away"
    MAIN_SILENT = "main_silent"
    STARTING = "starting"
    CONNECTING = "connecting"
    NO_CHILDREN = "no_children"
    DEAF = "deaf"
    PAUSED = "paused"
    BUSY = "busy"
    FULL = "full"
    FINE = "fine"


NOT_LIVE = frozenset({State.SUPERVISOR_STUCK, State.MAIN_STUCK})
NOT_READY = NOT_LIVE | {
    State.STOPPING,
    State.MAIN_DOWN,
    State.MAIN_SILENT,
    State.BROKER_AWAY,
    State.STARTING,
    State.CONNECTING,
    State.NO_CHILDREN,
}
NOT_WORKING = NOT_READY | {State.DEAF}

NOT_WELL = {
    Probe.LIVE: NOT_LIVE,
    Probe.READY: NOT_READY,
    Probe.WORKING: NOT_WORKING,
}

RESTART = "Restart the worker."
WAIT = "Nothing: it passes."
LOOK_AT_BROKER = "See to the broker; the worker waits for it and need not be restarted."
REMEDIES = {
    State.SUPERVISOR_STUCK: RESTART,
    State.MAIN_STUCK: RESTART,
    State.STOPPING: WAIT,
    State.MAIN_DOWN: "Look into the worker's log if this lasts.",
    State.MAIN_SILENT: "Nothing: it is replaced if this lasts; see the incidents.",
    State.BROKER_AWAY: LOOK_AT_BROKER,
    State.STARTING: WAIT,
    State.CONNECTING: WAIT,
    State.NO_CHILDREN: "Look into the worker's log: do the children fail to start?",
    State.DEAF: "Nothing yet: it is restarted by itself; see the incidents.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a probe is told."""

    node: str
    probe: Probe
    ok: bool
    state: State
    says: str
    do: str
    facts: Snapshot

    def to_wire(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def judge(probe: Probe, seen: Snapshot, about: About) -> Answer:
    """Answer a probe."""
    state = state_of(seen, about)
    ok = state not in NOT_WELL[probe]
    return Answer(
        node=about.node,
        probe=probe,
        ok=ok,
        state=state,
        says=in_words(state, seen, about),
        do="" if ok else REMEDIES[state],
        facts=seen,
    )


def state_of(seen: Snapshot, about: About) -> State:
    """The gravest state that fits."""
    return next(state for state, fits in _RULES if fits(seen, about))


def _main_is_stuck(seen: Snapshot, about: About) -> bool:
    if not about.supervised:
        # Celery's loop ends before the tasks do that it waits for.
        return not seen.stopping and seen.main_silent > about.stall_seconds
    return seen.main_silent > about.stall_seconds + REPLACE_SECONDS


def _is_silent(seen: Snapshot, about: About) -> bool:
    return seen.main_silent > min(SILENT_SECONDS, about.stall_seconds / 2)


def _nobody_asks(seen: Snapshot, about: About) -> bool:
    answered = seen.broker_answered_ago
    return answered is not None and answered > AWAY_SECONDS


_RULES: tuple[tuple[State, Callable[[Snapshot, About], bool]], ...] = (
    (
        State.SUPERVISOR_STUCK,
        lambda s, a: a.supervised and s.supervisor_silent > a.stall_seconds,
    ),
    (State.MAIN_STUCK, _main_is_stuck),
    (State.STOPPING, lambda s, a: s.stopping),
    (State.MAIN_DOWN, lambda s, a: not s.main_up),
    # Before main's silence, which it explains: main tries to reach it.
    (State.BROKER_AWAY, lambda s, a: s.broker_away_for is not None),
    (State.MAIN_SILENT, _is_silent),
    (State.BROKER_AWAY, _nobody_asks),
    (State.STARTING, lambda s, a: not s.consumes),
    (State.CONNECTING, lambda s, a: not s.connected),
    (State.NO_CHILDREN, lambda s, a: s.serving == 0),
    (State.DEAF, lambda s, a: s.deaf_for is not None),
    (State.PAUSED, lambda s, a: s.paused),
    (State.BUSY, lambda s, a: s.free == 0),
    (State.FULL, lambda s, a: s.full),
    (State.FINE, lambda s, a: True),
)


# In words.


def in_words(state: State, seen: Snapshot, about: About) -> str:
    """One line that says how the node is."""
    database = seen.database_away_for
    note = (
        ""
        if database is None
        else f"; the database has been away for {_seconds(database)}: letters and facts "
        f"wait for it, tasks do not"
    )
    return _words(state, seen, about) + note


def _words(state: State, seen: Snapshot, about: About) -> str:
    match state:
        case State.SUPERVISOR_STUCK:
            return (
                f"the supervisor has stood still for {_seconds(seen.supervisor_silent)}"
            )
        case State.MAIN_STUCK:
            silent = _seconds(seen.main_silent)
            return f"main has stood still for {silent}, and nobody replaces it"
        case State.STOPPING:
            return "stopping: it takes no more messages"
        case State.MAIN_DOWN:
            return "main has ended; another one is about to start"
        case State.MAIN_SILENT:
            return f"main has given no sign of life for {_seconds(seen.main_silent)}"
        case State.STARTING:
            return "starting: it has not consumed yet"
        case State.CONNECTING:
            return "connecting to the broker, which answers"
        case State.NO_CHILDREN:
            return f"none of {seen.slots} children is up"
        case State.PAUSED:
            return "paused: it consumes no queue, as somebody told it (cancel_consumer)"
        case _:
            return _words_of_one_that_consumes(state, seen)


def _words_of_one_that_consumes(state: State, seen: Snapshot) -> str:
    waiting = _waiting(seen)
    match state:
        case State.BROKER_AWAY:
            away = _longest(seen.broker_away_for, seen.broker_answered_ago)
            return f"the broker has not answered for {_seconds(away)}"
        case State.DEAF:
            return f"deaf: {waiting}, {_free(seen)}, and none is taken; {_taken(seen)}"
        case State.BUSY:
            longest = seen.longest_for
            runs = "" if longest is None else f", the longest for {_seconds(longest)}"
            return f"busy: all {seen.slots} slots run tasks{runs}; {waiting}"
        case State.FULL:
            return (
                f"full: it holds as many messages as it may, for their time or for a "
                f"rate limit; {waiting}"
            )
        case _:
            return f"fine: {_free(seen)}, {waiting}, {_taken(seen)}"


def _free(seen: Snapshot) -> str:
    return f"{seen.free} of {seen.slots} slots free"


def _waiting(seen: Snapshot) -> str:
    match seen.waiting:
        case None:
            return "how many messages wait is not known"
        case 0:
            return "no message waits"
        case 1:
            return "1 message waits"
        case many:
            return f"{many} messages wait"


def _taken(seen: Snapshot) -> str:
    if seen.taken_ago is None:
        return "none was taken yet"
    return f"the last was taken {_seconds(seen.taken_ago)} ago"


def _longest(*seconds: float | None) -> float:
    return max((each for each in seconds if each is not None), default=0.0)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s"
