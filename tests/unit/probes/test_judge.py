"""The table of docs/probes.md, row by row, and what outranks what."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.probes.judge import (
    NOT_LIVE,
    NOT_READY,
    NOT_WORKING,
    REMEDIES,
    Probe,
    State,
    judge,
    state_of,
)
from unstuck.probes.snapshot import About, Snapshot

OURS = About(node="celery@w1", supervised=True, stall_seconds=30)
OTHER = dataclasses.replace(OURS, supervised=False)

FINE = Snapshot(
    supervisor_silent=0.2,
    main_up=True,
    main_silent=0.5,
    consumes=True,
    stopping=False,
    connected=True,
    broker_answered_ago=1.0,
    broker_away_for=None,
    waiting=0,
    slots=2,
    free=2,
    serving=3,
    longest_for=None,
    taken_ago=4.0,
    paused=False,
    full=False,
    deaf_for=None,
    database_away_for=None,
)


def but(**changes: Any) -> Snapshot:
    """A node that is fine, but for this."""
    return dataclasses.replace(FINE, **changes)


BUSY = but(free=0, longest_for=3600.0, waiting=5)

TABLE: list[tuple[Snapshot, State, tuple[bool, bool, bool], str]] = [
    (FINE, State.FINE, (True, True, True), "2 of 2 slots free, no message waits"),
    (but(waiting=7), State.FINE, (True, True, True), "7 messages wait"),
    (but(waiting=None), State.FINE, (True, True, True), "is not known"),
    (but(taken_ago=None), State.FINE, (True, True, True), "none was taken yet"),
    (
        BUSY,
        State.BUSY,
        (True, True, True),
        "all 2 slots run tasks, the longest for 3600 s; 5 messages wait",
    ),
    (
        but(broker_away_for=40.0, connected=False),
        State.BROKER_AWAY,
        (True, False, False),
        "the broker has not answered for 40 s",
    ),
    (
        but(broker_answered_ago=60.0),
        State.BROKER_AWAY,
        (True, False, False),
        "has not answered for 60 s",
    ),
    (
        but(database_away_for=90.0),
        State.FINE,
        (True, True, True),
        "the database has been away for 90 s",
    ),
    (
        but(main_silent=12.0, broker_answered_ago=12.0),
        State.MAIN_SILENT,
        (True, False, False),
        "no sign of life for 12 s",
    ),
    (
        but(main_silent=41.0, broker_answered_ago=41.0),
        State.MAIN_STUCK,
        (False, False, False),
        "main has stood still for 41 s",
    ),
    (but(main_up=False), State.MAIN_DOWN, (True, False, False), "main has ended"),
    (
        but(supervisor_silent=31.0),
        State.SUPERVISOR_STUCK,
        (False, False, False),
        "the supervisor has stood still for 31 s",
    ),
    (
        but(deaf_for=35.0, waiting=7, taken_ago=None),
        State.DEAF,
        (True, True, False),
        "7 messages wait, 2 of 2 slots free, and none is taken",
    ),
    (
        but(consumes=False, connected=False),
        State.STARTING,
        (True, False, False),
        "starting",
    ),
    (but(connected=False), State.CONNECTING, (True, False, False), "connecting"),
    (but(stopping=True), State.STOPPING, (True, False, False), "stopping"),
    (but(serving=0, free=0), State.NO_CHILDREN, (True, False, False), "none of 2"),
    (but(paused=True), State.PAUSED, (True, True, True), "cancel_consumer"),
    (but(full=True, waiting=1), State.FULL, (True, True, True), "1 message waits"),
]


@pytest.mark.parametrize(("seen", "state", "ok", "words"), TABLE)
def test_a_row(
    seen: Snapshot, state: State, ok: tuple[bool, bool, bool], words: str
) -> None:
    """State, the three answers, and words."""
    answers = [judge(probe, seen, OURS) for probe in Probe]

    assert [answer.state for answer in answers] == [state] * 3
    assert tuple(answer.ok for answer in answers) == ok
    assert words in answers[0].says
    for answer in answers:
        assert bool(answer.do) is not answer.ok


def test_each_state_is_in_the_table() -> None:
    """None is forgotten, and whoever is not well is told what to do."""
    assert {state for _, state, _, _ in TABLE} == set(State)
    assert set(REMEDIES) == NOT_WORKING


def test_what_is_live_is_what_is_least() -> None:
    """Nothing works that is not ready, and nothing is ready that is not live."""
    assert NOT_LIVE < NOT_READY < NOT_WORKING


OUTAGES = [
    {"broker_away_for": 5000.0, "connected": False},
    {"broker_answered_ago": 5000.0},
    {"database_away_for": 5000.0},
    {"consumes": False},
    {"serving": 0, "free": 0},
    {"deaf_for": 5000.0},
    {"free": 0, "longest_for": 5000.0, "waiting": 1_000_000},
]


@pytest.mark.parametrize("about", [OURS, OTHER])
@pytest.mark.parametrize("two", list(itertools.combinations(OUTAGES, 2)))
def test_no_outage_is_deadly(two: tuple[dict[str, Any], ...], about: About) -> None:
    """Whatever is away, and whatever else is: restarting the worker would not help."""
    one, other = two
    assert judge(Probe.LIVE, but(**{**one, **other}), about).ok


@given(
    st.builds(
        Snapshot,
        **{
            field.name: {
                "bool": st.booleans(),
                "int": st.integers(0, 8),
                "int | None": st.none() | st.integers(0, 9),
                "float": st.floats(0, 100),
                "float | None": st.none() | st.floats(0, 100),
            }[str(field.type)]
            for field in dataclasses.fields(Snapshot)
        },
    ),
    st.sampled_from(Probe),
    st.sampled_from([OURS, OTHER]),
)
def test_there_is_always_an_answer(seen: Snapshot, probe: Probe, about: About) -> None:
    """One line, and JSON."""
    answer = judge(probe, seen, about)

    assert answer.says
    assert "\n" not in answer.says + answer.do
    assert json.loads(json.dumps(answer.to_wire()))["state"] == answer.state


def test_a_broker_that_is_away_explains_that_main_is_silent() -> None:
    """Main tries to reach it, a few seconds at a time."""
    seen = but(main_silent=12.0, broker_away_for=14.0)
    assert state_of(seen, OURS) is State.BROKER_AWAY


def test_other_pools_have_nobody_who_replaces_main() -> None:
    """So a main that stands still is not live at once, and its own stop is no stall."""
    assert state_of(but(main_silent=31.0), OURS) is State.MAIN_SILENT
    assert state_of(but(main_silent=31.0), OTHER) is State.MAIN_STUCK
    assert state_of(but(main_silent=31.0, stopping=True), OTHER) is State.STOPPING
    assert state_of(but(supervisor_silent=1e6), OTHER) is State.FINE
