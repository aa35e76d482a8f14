"""Facts: their way over the wire, and minutes that add up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.core import facts
from unstuck.core.facts import (
    OTHERS,
    Fact,
    Incident,
    Minute,
    Minutes,
    Run,
    Running,
    from_wire,
)
from unstuck.core.histogram import Histogram

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

instants = st.datetimes(timezones=st.just(UTC))
numbers = st.floats(allow_nan=False, allow_infinity=False)
runs = st.builds(
    Run,
    task_id=st.text(),
    task_name=st.text(),
    queue=st.text(),
    ending=st.text(),
    verdict=st.text(),
    ended_at=instants,
    started_at=st.none() | instants,
    attempt=st.integers(),
    deliveries=st.integers(),
    reason=st.text(),
    cause=st.text(),
    exception_type=st.text(),
    exception_message=st.text(),
    traceback=st.text(),
    stack=st.text(),
    soft_stack=st.text(),
    swallowed_soft_limit=st.booleans(),
    waiting_for=st.text(),
    node=st.text(),
    pid=st.none() | st.integers(),
    waited_seconds=st.none() | numbers,
    runtime_seconds=st.none() | numbers,
    rss_bytes=st.none() | st.integers(),
    rss_growth_bytes=st.none() | st.integers(),
    cpu_seconds=st.none() | numbers,
    child_age_seconds=st.none() | numbers,
    id=st.uuids().map(str),
)
minutes = st.builds(
    Minute,
    minute=instants,
    task_name=st.text(),
    queue=st.text(),
    counts=st.dictionaries(st.text(), st.integers()),
    node=st.text(),
    runtime_seconds=numbers,
    runtime_max=numbers,
    runtimes=st.text(),
    wait_seconds=numbers,
    wait_max=numbers,
    waits=st.text(),
    waits_unknown=st.integers(),
    rss_growth_bytes=st.integers(),
    swallowed=st.integers(),
)
incidents = st.builds(
    Incident,
    kind=st.text(),
    at=instants,
    process=st.text(),
    what=st.text(),
    node=st.text(),
    pid=st.none() | st.integers(),
    stack=st.text(),
    waiting_for=st.text(),
    details=st.dictionaries(st.text(), st.text() | st.integers() | st.none()),
    id=st.uuids().map(str),
)
running = st.builds(
    Running,
    at=instants,
    runs=st.lists(st.dictionaries(st.text(), st.text() | st.none())),
)
any_fact = runs | minutes | incidents | running


def run(**known: Any) -> Run:
    """A run of which only the named facts matter."""
    essence = {
        "task_id": "id",
        "task_name": "shop.send",
        "queue": "work",
        "ending": "failed",
        "verdict": "bury",
        "ended_at": NOON,
    }
    return Run(**{**essence, **known})


def count(
    minutes: Minutes,
    task: str = "shop.send",
    queue: str = "work",
    ending: str = "succeeded",
    seconds: float | None = 1.0,
    growth: int | None = 10,
    waited: float | None = 0.25,
    swallowed: bool = False,
    now: datetime = NOON,
) -> None:
    """Count one run."""
    minutes.add(task, queue, ending, seconds, waited, growth, swallowed, now)


def histogram(*values: float) -> str:
    """A histogram of these, on its way."""
    counted = Histogram()
    for seconds in values:
        counted.add(seconds)
    return counted.to_wire()


# The wire.


@given(any_fact)
def test_a_fact_comes_back_from_the_wire_as_it_was(fact: Fact) -> None:
    """Every field, through real JSON."""
    wire = json.loads(json.dumps(fact.to_wire()))

    assert from_wire(wire) == fact


@given(any_fact, st.dictionaries(st.text(min_size=30), st.integers(), max_size=3))
def test_fields_of_a_newer_version_are_left_out(
    fact: Fact, newer: dict[str, int]
) -> None:
    """As with letters."""
    wire = fact.to_wire()
    wire["fields"].update(newer)

    assert from_wire(wire) == fact


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"kind": "rumour", "fields": {}},
        {"kind": [], "fields": {}},
        {"kind": "run"},
        {"kind": "run", "fields": {}},
        {"kind": "run", "fields": 7},
        {"kind": "incident", "fields": {**run().to_wire()["fields"], "at": "noon"}},
    ],
)
def test_what_lacks_the_essence_is_no_fact(wire: Any) -> None:
    """An error that the receiver knows, not a fact with holes."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_wire(wire)


def test_each_run_and_each_incident_has_an_id_of_its_own() -> None:
    """Whoever stores one twice finds it by this."""
    assert run().id != run().id


# Minutes.


def test_endings_of_a_minute_add_up() -> None:
    """Counts by ending, the runtimes, the growth and what swallowed its soft limit."""
    minutes = Minutes("worker@host")
    count(minutes, seconds=1.0, growth=10)
    count(minutes, seconds=3.0, growth=-4, now=NOON + timedelta(seconds=59.9))
    count(minutes, ending="failed", seconds=0.5, growth=1, swallowed=True, waited=1.0)

    told = minutes.flush(NOON + timedelta(minutes=1))

    assert told == [
        Minute(
            minute=NOON,
            task_name="shop.send",
            queue="work",
            node="worker@host",
            counts={"succeeded": 2, "failed": 1},
            runtime_seconds=4.5,
            runtime_max=3.0,
            runtimes=histogram(1.0, 3.0, 0.5),
            wait_seconds=1.5,
            wait_max=1.0,
            waits=histogram(0.25, 0.25, 1.0),
            rss_growth_bytes=7,
            swallowed=1,
        )
    ]


def test_minutes_tasks_and_queues_are_counted_apart() -> None:
    """One fact for each."""
    minutes = Minutes()
    count(minutes)
    count(minutes, task="shop.mail")
    count(minutes, queue="slow")
    count(minutes, now=NOON + timedelta(minutes=1))

    told = minutes.flush(NOON + timedelta(minutes=2))

    assert [(one.minute.minute, one.task_name, one.queue) for one in told] == [
        (0, "shop.send", "work"),
        (0, "shop.mail", "work"),
        (0, "shop.send", "slow"),
        (1, "shop.send", "work"),
    ]


def test_a_minute_is_told_when_it_is_over() -> None:
    """And only once."""
    minutes = Minutes()
    count(minutes)

    assert minutes.flush(NOON + timedelta(seconds=59)) == []
    assert len(minutes.flush(NOON + timedelta(seconds=60))) == 1
    assert minutes.flush(NOON + timedelta(seconds=61)) == []


def test_everything_is_told_in_parts_that_add_up() -> None:
    """At the end of a worker, or for whoever cannot wait."""
    minutes = Minutes()
    count(minutes)
    first = minutes.flush(NOON, everything=True)
    count(minutes)
    second = minutes.flush(NOON, everything=True)

    assert [one.counts for one in first + second] == [{"succeeded": 1}] * 2


def test_what_is_not_known_adds_nothing() -> None:
    """A run whose process died has no runtime and no memory."""
    minutes = Minutes()
    count(minutes, ending="child_lost", seconds=None, growth=None)

    (told,) = minutes.flush(NOON, everything=True)

    assert (told.runtime_seconds, told.runtime_max, told.rss_growth_bytes) == (0, 0, 0)
    assert (told.runtimes, told.waits, told.waits_unknown) == ("", "", 0)


def test_waits_that_nobody_knows_are_counted_apart() -> None:
    """They are not taken for none."""
    minutes = Minutes()
    count(minutes, waited=None)
    count(minutes, waited=0.0)

    (told,) = minutes.flush(NOON, everything=True)

    assert (told.waits, told.waits_unknown) == (histogram(0.0), 1)


def test_the_clock_of_any_zone_falls_into_the_minute_in_utc() -> None:
    """India is half an hour off."""
    minutes = Minutes()
    india = timezone(timedelta(hours=5, minutes=30))
    count(minutes, now=(NOON + timedelta(seconds=30)).astimezone(india))

    (told,) = minutes.flush(NOON, everything=True)

    assert told.minute.isoformat() == NOON.isoformat()


def test_more_keys_than_allowed_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names made up by whoever publishes cannot fill the memory; no run is left out."""
    monkeypatch.setattr(facts, "MOST_KEYS", 3)
    minutes = Minutes()
    for number in range(10):
        count(minutes, task=f"made.up.{number}", queue=f"queue{number}")
    count(minutes, task="made.up.0", queue="queue0")

    told = minutes.flush(NOON, everything=True)

    assert [(one.task_name, one.counts["succeeded"]) for one in told] == [
        ("made.up.0", 2),
        ("made.up.1", 1),
        ("made.up.2", 1),
        (OTHERS, 7),
    ]
