"""When an entry was sent last, by the notes of the beats or by a scheduler's own store."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.beat.leading import Desk, FakeLeadership
from unstuck.beat.memory import Memory

NOW = time.time()


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def memory_of(**notes: Any) -> Memory:
    """What a new leader remembers by these notes."""
    desk = Desk()
    desk.notes = {name: json.dumps(note) for name, note in notes.items()}
    desk.leader = leadership = FakeLeadership(desk)
    return Memory(leadership)


def entry_of(
    at: float, count: int = 0, *, changed: float | None = None, name: str = "once"
) -> Any:
    """An entry of django-celery-beat, whose row was changed then."""
    model = SimpleNamespace(
        date_changed=moment(at if changed is None else changed),
        last_run_at=moment(at),
        total_run_count=count,
    )
    conf = SimpleNamespace(beat_schedule={"configured": {}})
    return SimpleNamespace(
        name=name,
        app=SimpleNamespace(conf=conf),
        last_run_at=model.last_run_at,
        total_run_count=count,
        model=model,
    )


def test_a_one_off_entry_knows_that_it_was_sent() -> None:
    """django-celery-beat looks at the count of its row, which may be behind."""
    entry = entry_of(NOW - 100)

    memory_of(once={"at": NOW - 50, "count": 1}).recall(entry)

    assert entry.model.total_run_count == 1
    assert entry.last_run_at == moment(NOW - 50)


@pytest.mark.parametrize("years", [0, 30])
def test_a_one_off_entry_that_is_enabled_again_is_sent_again(years: int) -> None:
    """Its row begins anew when it is changed; with a start time it looks far older."""
    before = years * 365 * 86_400
    entry = entry_of(NOW - 10 - before, changed=NOW - 10)

    memory_of(once={"at": NOW - 50, "count": 1}).recall(entry)

    assert entry.model.total_run_count == 0
    assert entry.last_run_at == moment(NOW - 10 - before)


def test_an_entry_that_was_never_sent_waits_from_when_it_is_enabled() -> None:
    """And is not due at once for the time that it was disabled."""
    entry = entry_of(NOW - 10)

    memory_of(once={"at": NOW - 5000, "count": 0}).recall(entry)

    assert entry.last_run_at == moment(NOW - 10)


def test_an_entry_of_the_settings_does_not_begin_anew_with_each_beat() -> None:
    """Each one that starts writes its row, as if people had changed it."""
    entry = entry_of(NOW - 10, name="configured")

    memory_of(configured={"at": NOW - 5000, "count": 0}).recall(entry)

    assert entry.last_run_at == moment(NOW - 5000)


def test_a_moment_without_a_zone_is_of_utc() -> None:
    """As for Celery, wherever the host is."""
    entry = entry_of(NOW - 100, count=1)
    entry.last_run_at = entry.last_run_at.replace(tzinfo=None)

    memory_of(once={"at": NOW - 50, "count": 2}).recall(entry)

    assert entry.last_run_at == moment(NOW - 50).replace(tzinfo=None)


@pytest.mark.parametrize(("noted", "own"), [(9e6, -50), (9e6, 9e6), (None, 9e6)])
def test_what_was_sent_in_the_future_was_sent_now(
    noted: float | None, own: float
) -> None:
    """A clock was ahead: else nothing is sent until it is as late as that; noted."""
    began, desk = time.time(), Desk()
    if noted:
        desk.notes["one"] = json.dumps({"at": began + noted, "count": 3})
    desk.leader = leadership = FakeLeadership(desk)
    memory, entry = Memory(leadership), entry_of(began + own, 3, name="one")

    memory.recall(entry)
    memory.write()

    def is_now(at: float) -> bool:
        return began - 1 < at < time.time() + 1  # A datetime is rounded.

    assert is_now(entry.last_run_at.timestamp())
    assert entry.model.last_run_at == entry.last_run_at
    assert is_now(json.loads(desk.notes["one"])["at"])


def test_a_row_of_the_future_is_not_believed() -> None:
    """It stays so until it is sent: it must not begin anew whenever it is read."""
    entry = entry_of(NOW + 9e6, 3)

    memory_of(once={"at": NOW - 50, "count": 2}).recall(entry)

    assert entry.last_run_at == moment(NOW - 50)
    assert entry.total_run_count == 3


def test_what_cannot_be_read_is_forgotten_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It keeps no beat from leading."""
    desk = Desk()
    desk.notes = {
        "a": "no JSON",
        "b": "{}",
        "c": '{"at": NaN, "count": 1}',
        "d": '{"at": 1e300, "count": 1}',
        "e": '{"at": null, "count": 1}',
        "f": "[]",
        "g": '{"at": 1, "count": Infinity}',
    }
    good = json.dumps({"at": NOW - 50, "count": 1})
    desk.notes["good"] = good
    desk.leader = leadership = FakeLeadership(desk)

    memory = Memory(leadership)
    memory.write()

    assert desk.notes == {"good": good}
    assert [one.partition(": ")[2] for one in caplog.messages] == [
        'entries="a, b, c, d, e, f, g"'
    ]
    Memory(leadership)
    assert len(caplog.messages) == 1


def test_notes_of_what_is_gone_for_months_are_forgotten() -> None:
    """Not before: a table has entries that its scheduler seldom loads."""
    desk = Desk()
    for name, days in (("old", 91), ("new", 89)):
        at = NOW - days * 86_400
        desk.notes[name] = json.dumps({"at": at, "count": 1, "gone": at})
    desk.leader = leadership = FakeLeadership(desk)
    memory, entry = Memory(leadership), entry_of(NOW - 1e9, 1, name="new")

    memory.meet([])
    memory.write()
    assert desk.notes.keys() == {"new"}

    memory.recall(entry)
    assert entry.last_run_at == moment(NOW - 89 * 86_400)
