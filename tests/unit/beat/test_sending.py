"""Entries are advanced when they were sent, and not before; whoever leads."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.beat import Scheduler
from celery.schedules import crontab
from kombu.exceptions import OperationalError

from tests.unit.beat.leading import (
    Desk,
    Sent,
    app_of,
    scheduler_of,
    try_again,
    turn,
)
from tests.waiting import eventually
from unstuck.beat.sending import Sending, sending
from unstuck.beat.unsent import Unsent
from unstuck.core.errors import LockBusy


def make_due(scheduler: Sent, *names: str) -> None:
    """As if they had been sent long ago."""
    for name in names:
        entry = scheduler.schedule[name]
        entry.last_run_at = entry.default_now() - timedelta(hours=1)
    scheduler._heap = None


def last_of(scheduler: Sent, name: str) -> datetime:
    found: datetime = scheduler.schedule[name].last_run_at
    return found


def names_of(scheduler: Sent) -> list[str]:
    return [name for name, _ in scheduler.sent]


def test_what_is_due_is_sent_once_and_noted() -> None:
    """The others wait for their time; the note is when, and how often."""
    desk = Desk()
    scheduler = scheduler_of(app_of(often=60, rare=7200), desk)
    make_due(scheduler, "often")

    wait = turn(scheduler)

    assert names_of(scheduler) == ["often"]
    assert 50 < wait <= 60
    noted = json.loads(desk.notes["often"])
    assert noted == {"at": last_of(scheduler, "often").timestamp(), "count": 1}


def test_what_is_refused_is_due_until_it_is_sent() -> None:
    """Sent once when the broker is back, however many times were missed."""
    desk = Desk()
    scheduler = scheduler_of(app_of(often=60), desk)
    make_due(scheduler, "often")
    before = last_of(scheduler, "often")
    scheduler.refused["often"] = OperationalError("away")

    assert turn(scheduler) <= 0.5
    assert last_of(scheduler, "often") == before
    assert scheduler.unsent.get("often").error == "away"

    scheduler.refused.clear()
    try_again(scheduler, "often")
    assert names_of(scheduler) == ["often"]
    assert scheduler.unsent.get("often") is None
    assert turn(scheduler) > 50


def test_a_refused_entry_comes_again_without_a_new_heap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose making costs as much as the schedule is long: once when the broker is back."""
    names = [f"entry{number}" for number in range(200)]
    scheduler = scheduler_of(app_of(**dict.fromkeys(names, 60)), Desk())
    make_due(scheduler, *names)
    scheduler.refused = dict.fromkeys(names, OperationalError("away"))
    turn(scheduler, 1000)
    made = []
    populate = type(scheduler).populate_heap
    monkeypatch.setattr(
        type(scheduler), "populate_heap", lambda me: made.append(1) or populate(me)
    )

    scheduler.refused.clear()
    for name in names:
        scheduler.unsent.get(name).again_at += 5
    scheduler.unsent.get(names[0]).again_at = 0.0
    eventually(lambda: turn(scheduler, 1000) and len(scheduler.sent) == 200, 20)

    assert len(made) < 20


def test_one_whose_last_call_has_not_ended_is_not_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor tried again, nor in trouble, even if it was before: its next time counts."""
    scheduler = scheduler_of(app_of(unique=60), Desk())
    make_due(scheduler, "unique")
    scheduler.refused["unique"] = OperationalError("away")
    turn(scheduler)

    scheduler.refused["unique"] = LockBusy("'unique:x' is held", name="unique:x")
    with caplog.at_level(logging.INFO, logger="unstuck"):
        assert try_again(scheduler, "unique") > 50

    assert scheduler.sent == []
    assert scheduler.unsent.get("unique") is None
    [said] = [line for line in caplog.messages if "has not ended" in line]
    assert "'unique:x' is held" in said
    assert not [line for line in caplog.messages if "was late" in line]


def test_one_that_is_refused_keeps_no_other() -> None:
    """They are sent meanwhile, and it has a wait of its own."""
    scheduler = scheduler_of(app_of(broken=60, well=60), Desk())
    make_due(scheduler, "broken", "well")
    scheduler.refused["broken"] = TypeError("no JSON: 4711")

    turn(scheduler)

    assert names_of(scheduler) == ["well"]
    assert scheduler.unsent.wait_for("broken") > 0
    assert scheduler.unsent.get("broken").error == "TypeError; see the log of beat"


def test_a_new_leader_begins_where_the_last_has_ended() -> None:
    """What was just sent is not due, and what was due is: whatever its own store says."""
    desk, app = Desk(), app_of(one=60, two=60)
    first = scheduler_of(app, desk)
    make_due(first, "one", "two")
    first.refused["two"] = OperationalError("away")
    turn(first)

    second = scheduler_of(app, desk)
    make_due(second, "one")
    turn(second)

    assert names_of(second) == ["two"]
    assert last_of(second, "one") == last_of(first, "one")
    assert second.schedule["one"].total_run_count == 1


def test_a_crontab_is_sent_once_for_each_of_its_times() -> None:
    """By whoever leads; one that was missed is sent when somebody does."""
    desk, app = Desk(), app_of(nightly=crontab(hour="4", minute="30"))
    missed = datetime.now(UTC) - timedelta(days=3)
    desk.notes["nightly"] = json.dumps({"at": missed.timestamp(), "count": 9})
    first = scheduler_of(app, desk)
    turn(first)
    second = scheduler_of(app, desk)
    turn(second)

    assert names_of(first) == ["nightly"]
    assert second.sent == []


def test_a_store_that_knows_of_a_later_run_is_believed() -> None:
    """Notes may be lost, or of before stock Celery has sent for a while."""
    desk, app = Desk(), app_of(one=60)
    first = scheduler_of(app, desk)
    make_due(first, "one")
    turn(first)
    desk.notes["one"] = json.dumps({"at": 1.0, "count": 1})

    second = scheduler_of(app, desk)
    second.schedule["one"].total_run_count = 2
    turn(second)

    assert second.sent == []


def test_a_task_that_is_sent_again_after_a_death_has_the_same_id() -> None:
    """The leader died when the broker had it, and before it could note that."""
    desk, app = Desk(), app_of(one=60)
    desk.notes["one"] = json.dumps({"at": 1.0, "count": 4})
    noted = dict(desk.notes)
    first = scheduler_of(app, desk)
    turn(first)
    desk.notes = noted

    second = scheduler_of(app, desk)
    turn(second)

    assert len(first.sent) == 1
    assert first.sent == second.sent


def test_an_entry_that_nobody_sent_yet_is_noted_from_when_it_is_known() -> None:
    """Else a beat that is killed again and again would begin to wait each time."""
    desk, app = Desk(), app_of(rare=3600)
    first = scheduler_of(app, desk)
    turn(first)
    first.write_down()
    noted = json.loads(desk.notes["rare"])
    noted["at"] -= 3000
    desk.notes["rare"] = json.dumps(noted)

    assert turn(scheduler_of(app, desk)) < 700


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    """What was sent while it was ahead was sent now, also to the one that leads."""
    scheduler = scheduler_of(app_of(often=60), Desk())
    turn(scheduler)
    entry = scheduler.schedule["often"]
    entry.last_run_at += timedelta(days=900)
    scheduler._ahead += 900 * 86_400

    assert 50 < turn(scheduler) <= 60


def test_an_entry_that_was_taken_out_begins_anew_after_a_day() -> None:
    """Put back sooner, as when a roll-out goes back and forth, it goes on."""
    desk = Desk()
    desk.notes["weekly"] = json.dumps({"at": time.time() - 9e5, "count": 4})
    without = scheduler_of(app_of(other=60), desk)
    turn(without)
    without.write_down()
    gone = json.loads(desk.notes["weekly"])
    assert time.time() - gone["gone"] < 600
    noted = dict(desk.notes)

    soon = scheduler_of(app_of(weekly=6e5), desk)
    turn(soon)
    assert names_of(soon) == ["weekly"]
    assert "gone" not in json.loads(desk.notes["weekly"])

    long_ago = json.dumps({**gone, "gone": gone["gone"] - 100_000})
    desk.notes = {**noted, "weekly": long_ago}
    late = scheduler_of(app_of(weekly=6e5), desk)
    turn(late)
    late.write_down()
    assert late.sent == []
    noted_anew = json.loads(desk.notes["weekly"])
    assert noted_anew == {"at": last_of(late, "weekly").timestamp(), "count": 0}


def test_who_does_not_lead_any_more_sends_nothing() -> None:
    """It is asked before each message; nor when that cannot be asked."""
    desk = Desk()
    scheduler = scheduler_of(app_of(often=60), desk)
    make_due(scheduler, "often")

    desk.leader, leader = None, desk.leader
    turn(scheduler)
    assert scheduler.sent == []
    assert scheduler.unsent.get("often").error == "another beat may lead by now"

    desk.leader, desk.is_away = leader, True
    try_again(scheduler, "often")
    assert scheduler.sent == []
    assert scheduler.unsent.get("often").error == "away"

    desk.is_away = False
    try_again(scheduler, "often")
    assert names_of(scheduler) == ["often"]


def test_a_refused_entry_that_is_due_no_more_is_not_looked_for_all_the_time() -> None:
    """Its schedule may have a deadline of its own."""
    scheduler = scheduler_of(app_of(often=60), Desk())
    make_due(scheduler, "often")
    scheduler.refused["often"] = OperationalError("away")
    turn(scheduler)
    scheduler.schedule["often"].schedule.run_every = timedelta(hours=2)

    assert try_again(scheduler, "often") > 200


def test_the_options_of_an_entry_are_its_own() -> None:
    """What we add is for one message."""
    scheduler = scheduler_of(app_of(often=60), Desk())
    make_due(scheduler, "often")
    entry = scheduler.schedule["often"]

    turn(scheduler)

    assert set(entry.options) <= {"headers"}


def test_a_scheduler_that_sends_in_its_own_way_is_left_alone() -> None:
    """RedBeat's, or one that sends to each tenant; all others have ours on top, once."""

    class Ticking(Scheduler):
        def tick(self) -> float:  # type: ignore[override]
            return 1.0

    class Applying(Sent):
        def apply_entry(self, entry: Any, producer: Any = None) -> None:
            for _ in ("tenant 1", "tenant 2"):
                self.apply_async(entry, producer=producer, advance=False)

    assert sending(Ticking) is Ticking
    assert sending(Applying) is Applying
    ours = sending(Sent)
    assert issubclass(ours, Sending)
    assert issubclass(ours, Sent)
    assert sending(ours) is ours


def test_what_is_put_around_celery_s_apply_entry_sees_each_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As Sentry does, whose check-in is in the headers; Celery's log of it is ours."""
    inner, seen = Scheduler.apply_entry, []

    def around(*args: Any, **kwargs: Any) -> None:
        scheduler, entry = args
        seen.append(entry.name)
        entry.options["headers"] = {"sentry-monitor": "often"}
        inner(scheduler, entry, **kwargs)

    monkeypatch.setattr(Scheduler, "apply_entry", around)
    scheduler = scheduler_of(app_of(often=60), Desk())
    make_due(scheduler, "often")
    scheduler.refused["often"] = OperationalError("away")

    with caplog.at_level(logging.INFO):
        turn(scheduler)
        try_again(scheduler, "often")
        assert scheduler.unsent.get("often").failures == 2
        scheduler.refused.clear()
        try_again(scheduler, "often")

    assert seen == ["often"] * 3
    assert names_of(scheduler) == ["often"]
    said = [one for one in caplog.messages if "Sending due task" in one]
    assert len(said) == 1
    assert not any("Message Error" in one for one in caplog.messages)


def test_tries_are_said_once_and_come_again_soon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first failure, and the end of it; when one goes through, all are tried."""
    now = 100.0
    unsent = Unsent(lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            unsent.failed("a", OperationalError("away"))
        unsent.failed("b", OperationalError("away"))
        assert unsent.wait_for("b") == 0.5
        now = 104.0
        assert unsent.wait_for("b") == 0
        assert unsent.wait_for("a") == 1.0
        assert unsent.sent("b")
        assert unsent.wait_for("a") == 0
        assert not unsent.sent("a")
    assert unsent.get("a") is None
    assert len(caplog.messages) == 4
    assert (
        caplog.messages[0]
        == "Beat could not send an entry, and tries again: entry=a error=away"
    )
