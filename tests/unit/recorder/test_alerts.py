"""What is to be told, each thing once, and once more when it is over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.unit.recorder.seen import NOON
from unstuck import conf
from unstuck.core.alerts import Target, targets
from unstuck.models import (
    Alert,
    DeadLetter,
    Incident,
    Node,
    PeriodicEntry,
    QueueSample,
)
from unstuck.recorder.alerts import rows
from unstuck.recorder.alerts.message import message_of, state_of

pytestmark = pytest.mark.django_db

LETTERS = "unstuck.dead"


def after(**span: float) -> datetime:
    """An instant after noon."""
    return NOON + timedelta(**span)


def wants(*conditions: Any, to: str = "shop.tell") -> Target:
    """A target that wants these."""
    (target,) = targets([{"to": to, "on": list(conditions)}])
    return target


def look(target: Target, now: datetime = NOON, sees_nodes: bool = True) -> list[str]:
    """Look for it, and what there is to tell: states and subjects."""
    rows.look([target], now, LETTERS, sees_nodes=sees_nodes)
    return [
        f"{state_of(row)} {row.subject}" for row in rows.due("default", target, now)
    ]


def tell(target: Target, now: datetime) -> None:
    """As if the target had been told of all that is due."""
    rows.told("default", rows.due("default", target, now), now)


def letter(at: datetime = NOON, trouble: str = "t", **known: Any) -> None:
    """A letter that was archived then."""
    facts = {"task_name": "shop.send", "reason": "failed", "buried_at": at, **known}
    made = DeadLetter.objects.create(
        letter_id=uuid4(), task_id="id", fingerprint=trouble, message=b"", **facts
    )
    DeadLetter.objects.filter(pk=made.pk).update(archived_at=at)


def sample(at: datetime = NOON, queue: str = "work", **known: Any) -> None:
    QueueSample.objects.create(queue=queue, at=at, **{"waiting": 3, **known})


def node(name: str = "one@host", **known: Any) -> None:
    facts = {
        "state": "ready",
        "started_at": NOON,
        "seen_at": NOON,
        "queues": ["work"],
        **known,
    }
    Node.objects.update_or_create(name=name, defaults=facts)


# -- conditions


def test_a_fingerprint_is_new_once() -> None:
    """Not again with the next letter of the same trouble, and it is never over."""
    target = wants("new_fingerprint")
    letter(after(days=-3), "old")
    letter(NOON, "old")
    letter(NOON, "new", exception_type="ValueError", reason="hard_limit")
    letter(NOON, "new", exception_type="ValueError", reason="hard_limit")

    assert look(target, after(seconds=10)) == ["new new"]
    row = Alert.objects.get()
    assert "shop.send was buried, hard limit (ValueError); 2 letters" in row.what
    assert row.remedy.startswith("manage.py unstuck dead show ")
    tell(target, after(seconds=10))
    letter(after(minutes=5), "new")

    assert look(target, after(minutes=10)) == []
    assert look(target, after(hours=5)) == []


def test_a_trouble_that_was_purged_is_new_when_it_comes_again() -> None:
    """Long after, that is."""
    target = wants("new_fingerprint")
    letter()
    look(target)
    tell(target, NOON)
    DeadLetter.objects.all().delete()
    letter(after(minutes=5))
    assert look(target, after(minutes=5)) == []
    DeadLetter.objects.all().delete()
    letter(after(hours=3))

    assert look(target, after(hours=3)) == ["new t"]


def test_letters_above_a_number_within_minutes() -> None:
    """Not at the number, and not by older ones."""
    target = wants({"condition": "letters_above", "count": 2, "minutes": 10})
    for minutes in (-20, -5, -1):
        letter(after(minutes=minutes))
    assert look(target) == []
    letter()

    assert look(target) == ["firing 2 in 10 minutes"]
    assert "3 dead letters within 10 minutes" in Alert.objects.get().what


def test_a_queue_whose_oldest_message_waits_too_long() -> None:
    """By the last sample; that of the dead letters is none of it."""
    target = wants({"condition": "queue_older_than", "seconds": 60})
    sample(after(seconds=-15), oldest_seconds=500.0)
    sample(oldest_seconds=1.0)
    sample(queue="late", oldest_seconds=61.0)
    sample(queue="untold")
    sample(queue=LETTERS, oldest_seconds=500.0)

    assert look(target) == ["firing late"]
    assert "waited for 61 s, longer than 60 s" in Alert.objects.get().what


def test_of_one_queue() -> None:
    """Others are not looked at."""
    target = wants({"condition": "queue_older_than", "seconds": 60, "queue": "media"})
    sample(oldest_seconds=100.0)
    assert look(target) == []
    sample(queue="media", oldest_seconds=100.0)

    assert look(target) == ["firing media"]


@pytest.mark.parametrize("unseen", [{"state": "gone"}, {"state": "ready"}])
def test_a_queue_that_nobody_consumes_any_more(unseen: dict[str, str]) -> None:
    """Not while its node may be restarting, and not for ever."""
    target = wants("queue_without_worker")
    node(**unseen)
    assert look(target, after(seconds=110)) == []
    assert look(target, after(seconds=130), sees_nodes=False) == []

    assert look(target, after(seconds=130)) == ["firing work"]
    tell(target, after(seconds=130))
    sample(after(days=1, minutes=5), waiting=0)
    assert look(target, after(days=1, minutes=5)) == ["resolved work"]


def test_a_queue_where_messages_wait_for_longer_than_its_worker_is_missed() -> None:
    """A day later it still has none; a broker that cannot be asked does not end that."""
    target = wants("queue_without_worker")
    node(state="gone")
    assert look(target, after(seconds=130)) == ["firing work"]
    tell(target, after(seconds=130))

    assert look(target, after(days=1, minutes=5)) == ["lasting work"]
    tell(target, after(days=1, minutes=5))
    sample(after(days=1, minutes=8))
    assert look(target, after(days=1, minutes=8)) == []
    sample(after(days=1, minutes=12), waiting=0)
    assert look(target, after(days=1, minutes=12)) == ["resolved work"]


@pytest.mark.parametrize("by", ["another node", "somebody else"])
def test_a_queue_that_somebody_consumes(by: str) -> None:
    """A node of ours, or a consumer that the broker knows of."""
    target = wants("queue_without_worker")
    node(state="gone")
    now = after(minutes=10)
    if by == "another node":
        node("two@host", seen_at=now)
    else:
        sample(now, consumers=1)

    assert look(target, now) == []


def test_a_queue_where_messages_wait_and_no_node_has_ever_been() -> None:
    """Once they did at every glance for long enough."""
    target = wants("queue_without_worker")
    for seconds in range(0, 150, 15):
        sample(after(seconds=seconds))
        sample(after(seconds=seconds), queue="moves", waiting=seconds % 2)
    assert look(target, after(seconds=100)) == []

    assert look(target, after(seconds=140)) == ["firing work"]
    assert "No worker consumes work; 3 messages wait" in Alert.objects.get().what


def test_a_lost_node_and_letters_that_nobody_archives_are_incidents() -> None:
    """What was found once is not found in another way."""
    target = wants("node_lost", "recorder_behind")
    for kind, name in (("node_lost", "one@host"), ("letters_waiting", "")):
        Incident.objects.create(
            incident_id=uuid4(), kind=kind, at=NOON, node=name, what="So it is."
        )

    assert look(target, after(seconds=5)) == ["firing one@host", f"firing {LETTERS}"]
    tell(target, after(seconds=5))
    Incident.objects.update(resolved_at=after(minutes=1))
    assert look(target, after(minutes=3)) == [
        "resolved one@host",
        f"resolved {LETTERS}",
    ]


def test_a_recorder_that_is_behind() -> None:
    """As its node said it last; of one that is gone it is no news."""
    target = wants("recorder_behind")
    node(facts_lag_seconds=61.0)
    node("gone@host", facts_lag_seconds=61.0, state="gone")
    node("well@host", facts_lag_seconds=59.0)

    assert look(target) == ["firing one@host"]


def entry(name: str = "nightly", **known: Any) -> None:
    facts = {
        "beat": "unstuck.beat:shop",
        "next_run_at": NOON,
        "told_by": "celerybeat@one",
        "told_at": NOON,
    }
    PeriodicEntry.objects.create(name=name, task_name="shop.run", **{**facts, **known})


def test_an_entry_that_beat_should_have_sent() -> None:
    """Of one that beat tries in vain, why; not of what is disabled, or not yet due."""
    target, now = wants("beat_overdue"), after(seconds=61)
    entry()
    entry("refused", last_error="Connection refused")
    entry("disabled", enabled=False)
    entry("soon", next_run_at=after(seconds=5))

    assert look(target, now) == ["firing nightly", "firing refused"]
    text = message_of(rows.due("default", target, now))["text"]
    assert "Beat should have sent nightly (shop.run) 61 s ago and has not. " in text
    assert "Look whether a beat runs" in text
    assert "and has not: Connection refused " in text
    assert "Beat tries again every few seconds." in text
    tell(target, now)

    # Right after an outage of the database nobody could have told.
    assert look(target, now, sees_nodes=False) == []
    PeriodicEntry.objects.update(next_run_at=after(hours=1), last_error="")
    assert look(target, after(minutes=4)) == ["resolved nightly", "resolved refused"]


def test_an_entry_that_is_never_sent_is_never_over() -> None:
    """Until somebody says that its beat is no more."""
    target = wants("beat_overdue")
    entry()
    look(target, after(minutes=5))
    tell(target, after(minutes=5))

    assert look(target, after(days=8)) == ["lasting nightly"]
    tell(target, after(days=8))
    assert "delete its rows of PeriodicEntry" in Alert.objects.get().remedy
    PeriodicEntry.objects.all().delete()
    assert look(target, after(days=8, minutes=3)) == ["resolved nightly"]


def test_two_beats_may_have_an_entry_of_one_name() -> None:
    """Each is told for itself, and over by itself."""
    target = wants("beat_overdue")
    entry()
    entry(beat="unstuck.beat:shelf")
    assert look(target, after(minutes=5)) == ["firing nightly", "firing nightly"]
    tell(target, after(minutes=5))
    PeriodicEntry.objects.filter(beat="unstuck.beat:shelf").delete()

    assert look(target, after(minutes=8)) == ["resolved nightly"]
    over = Alert.objects.exclude(resolved_at=None).get()
    assert over.facts["beat"] == "unstuck.beat:shelf"


# -- once


def late_queue(at: datetime, seconds: float = 1000.0) -> None:
    sample(at, oldest_seconds=seconds)


def test_what_lasts_is_told_once_a_day_and_when_it_is_over() -> None:
    """However often it is looked for."""
    target = wants("queue_older_than")
    said = []
    for hours in range(50):
        now = after(hours=hours)
        late_queue(now)
        said += look(target, now)
        tell(target, now)
    assert said == ["firing work", "lasting work", "lasting work"]
    late_queue(after(hours=50), 1.0)

    assert look(target, after(hours=50)) == ["resolved work"]
    tell(target, after(hours=50))
    late_queue(after(hours=51), 1.0)
    assert look(target, after(hours=51)) == []
    assert Alert.objects.get().since == NOON


def test_what_comes_back_at_once_was_never_over() -> None:
    """What trembles about its limit is one alert."""
    target = wants("queue_older_than")
    said = []
    for place in range(40):
        now = after(seconds=15 * place)
        late_queue(now, 1000.0 if place % 2 else 1.0)
        said += look(target, now)
        tell(target, now)

    assert said == ["firing work"]


def test_what_comes_back_later_is_told_again() -> None:
    """It is a new time."""
    target = wants("queue_older_than")
    said = []
    for minutes, seconds in ((0, 1000.0), (5, 1.0), (10, 1000.0)):
        late_queue(after(minutes=minutes), seconds)
        said += look(target, after(minutes=minutes))
        tell(target, after(minutes=minutes))

    assert said == ["firing work", "resolved work", "firing work"]
    assert Alert.objects.get().since == after(minutes=10)


def test_what_nobody_can_tell_is_not_over() -> None:
    """A broker that cannot be asked is no good news."""
    target = wants("queue_older_than")
    late_queue(NOON)
    look(target)
    tell(target, NOON)

    assert look(target, after(minutes=30)) == []
    assert Alert.objects.get().is_firing


def test_a_queue_that_is_not_counted_any_more_is_not_well() -> None:
    """Samples of others say nothing of it."""
    target = wants("queue_older_than")
    late_queue(NOON)
    look(target)
    tell(target, NOON)
    sample(after(minutes=30), queue="other", oldest_seconds=0.0)

    assert look(target, after(minutes=30)) == []
    late_queue(after(minutes=31), 1.0)
    assert look(target, after(minutes=31)) == ["resolved work"]


def test_a_queue_that_is_not_there_keeps_no_other_alert_open() -> None:
    """A name that is misspelt, or of a queue that was retired."""
    target = wants(
        {"condition": "queue_older_than", "queue": "work"},
        {"condition": "queue_older_than", "queue": "ghost"},
    )
    late_queue(NOON)
    assert look(target) == ["firing work"]
    tell(target, NOON)
    late_queue(after(minutes=5), 1.0)

    assert look(target, after(minutes=5)) == ["resolved work"]


@pytest.mark.parametrize("condition", ["queue_older_than", "queue_without_worker"])
def test_a_queue_that_nobody_asks_about_any_more_is_over(condition: str) -> None:
    """It is not told each day that its samples are missing."""
    node(state="gone")
    late_queue(after(minutes=10))
    assert look(wants(condition), after(minutes=10)) == ["firing work"]
    tell(wants(condition), after(minutes=10))

    other = wants({"condition": condition, "queue": "other"})

    assert look(other, after(minutes=15)) == ["resolved work"]


def test_each_target_is_told_for_itself() -> None:
    """And what none wants any more is forgotten."""
    one, two = wants("queue_older_than"), wants("queue_older_than", to="shop.other")
    late_queue(NOON)
    rows.look([one, two], NOON, LETTERS)
    tell(one, NOON)

    assert rows.due("default", two, NOON)
    rows.look([two], NOON, LETTERS)
    assert [row.target for row in Alert.objects.all()] == ["shop.other"]
    look(wants("node_lost", to="shop.other"))
    assert not Alert.objects.exists()


def test_messages_to_a_target_are_not_too_many() -> None:
    """What comes soon after a message waits a minute, and comes together."""
    target = wants("new_fingerprint")
    letter(trouble="first")
    assert look(target) == ["new first"]
    tell(target, NOON)
    for place in range(3):
        letter(after(seconds=10 + place), f"next {place}")
        assert look(target, after(seconds=15 + place)) == []

    assert len(look(target, after(seconds=70))) == 3


def test_a_target_that_fails_gets_longer_and_longer_breaks() -> None:
    """Also from what is new; what it was not told of is told in the end."""
    target = wants("new_fingerprint", "queue_older_than")
    letter()
    late_queue(NOON)
    now, waits = NOON, []
    assert len(look(target)) == 2
    for place in range(12):
        rows.failed("default", rows.due("default", target, now), "no answer", now)
        letter(now, f"next {place}")
        until = Alert.objects.filter(attempts__gt=0).latest("due_at").due_at
        assert until is not None
        assert look(target, until - timedelta(seconds=1)) == []
        assert look(target, until) != []
        waits.append((until - now).total_seconds())
        now = until

    assert waits[:5] == [15.0, 30.0, 60.0, 120.0, 240.0]
    assert max(waits) == waits[-1] == 3600.0
    # Over in the meantime, as there are samples again.
    late_queue(now, 1.0)
    found = look(target, now)
    assert found.count("resolved work") == 1
    assert len(found) == 14
    tell(target, now)
    assert set(Alert.objects.values_list("attempts", "last_error")) == {(0, "")}


def test_what_changes_while_it_is_told_is_still_told() -> None:
    """Its end, that is."""
    target = wants("queue_older_than")
    late_queue(NOON)
    look(target)
    sent = rows.due("default", target, NOON)
    late_queue(after(minutes=5), 1.0)
    look(target, after(minutes=5))
    rows.told("default", sent, after(minutes=5))

    assert look(target, after(minutes=7)) == ["resolved work"]


def test_rows_go_with_the_incidents(settings: Any) -> None:
    """Unless that is so soon that they would be told again."""
    target = wants("new_fingerprint")
    letter()
    look(target)
    tell(target, NOON)
    settings.UNSTUCK = {"RETENTION_DAYS": {"incidents": 0.01}}
    assert conf.current().retention_days["incidents"] == 0.01
    look(target, after(hours=23))
    assert Alert.objects.exists()

    look(target, after(hours=25))

    assert not Alert.objects.exists()


@pytest.mark.parametrize("days", [1, 1_000_000])
def test_however_long_they_are_kept(settings: Any, days: int) -> None:
    """Longer than there have been clocks is for ever."""
    settings.UNSTUCK = {"RETENTION_DAYS": {"incidents": days}}

    assert look(wants("node_lost")) == []


# -- what is said


def test_a_storm_is_one_message_that_counts() -> None:
    """The first few one by one, the rest as a number."""
    target = wants("new_fingerprint", "queue_older_than")
    for place in range(300):
        letter(trouble=f"trouble {place}")
    late_queue(NOON)
    look(target)

    message = message_of(rows.due("default", target, NOON))

    assert (len(message["alerts"]), message["more"]) == (6, 295)
    assert (
        message["title"]
        == "NEW new fingerprint: 300 times; FIRING queue older than: work"
    )
    lines = message["text"].splitlines()
    assert len(lines) == 13
    assert lines[10] == "NEW … and 295 more: new fingerprint"


def test_a_message_says_what_since_when_and_what_to_do() -> None:
    """In words, and in fields that stay as they are."""
    target = wants("queue_older_than")
    late_queue(NOON)
    look(target)

    message = message_of(rows.due("default", target, NOON))

    assert message["text"] == (
        "FIRING The oldest of 3 messages in work has waited for 1000 s, longer than "
        "600 s. (since 2026-03-01 12:00:00 UTC)\n  What to do: Look at `manage.py "
        "unstuck status`; start more workers with -Q work, or find what holds up "
        "those that there are."
    )
    (alert,) = message["alerts"]
    assert alert["id"] == str(Alert.objects.get().alert_id)
    assert {key: alert[key] for key in ("state", "condition", "subject", "since")} == {
        "state": "firing",
        "condition": "queue_older_than",
        "subject": "work",
        "since": "2026-03-01T12:00:00+00:00",
    }
    assert alert["resolved_at"] is None
    assert alert["facts"]["waiting"] == 3
