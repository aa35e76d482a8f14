"""What operators do to dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError
from kombu.exceptions import OperationalError

from tests.unit.dead import archived, published
from unstuck import BrokerUnreachable, Celery, ReplayError, operations
from unstuck.models import AuditEntry, DeadLetter
from unstuck.operations import (
    PurgeError,
    ReplayReport,
    purge,
    replay_letter,
    replay_many,
)

pytestmark = pytest.mark.django_db


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.while_asleep: Callable[[], object] = lambda: None

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.while_asleep()


def _replay_all(app: Celery, time: Time, **options: Any) -> ReplayReport:
    return replay_many(
        app,
        DeadLetter.objects.all(),
        who="alice",
        clock=time.clock,
        sleep=time.sleep,
        **options,
    )


@pytest.fixture
def broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr("unstuck.letters.queue.put_back", refuse)


def test_a_replay_puts_the_message_back_under_a_new_id(app: Celery) -> None:
    """Body untouched, new task id, linked both ways."""
    letter = archived(app, args=[1, "ü"])

    task_id = replay_letter(app, letter, who="alice")

    (message,) = published(app)
    assert message.body in (bytes(letter.message), bytes(letter.message).decode())
    assert message.headers["id"] == task_id != letter.task_id
    assert message.headers["unstuck"] == {"replay_of": letter.task_id}
    letter.refresh_from_db()
    assert letter.replayed_as == task_id
    assert letter.replayed_at is not None


def test_a_replay_leaves_an_audit_entry(app: Celery) -> None:
    """Who, what, why, and both ids."""
    letter = archived(app)

    task_id = replay_letter(app, letter, who="alice", why="fixed in 1.2")

    entry = AuditEntry.objects.get()
    assert (entry.who, entry.what, entry.why) == ("alice", "replay", "fixed in 1.2")
    assert entry.target == letter.task_id
    assert entry.details["replayed_as"] == task_id


@pytest.mark.parametrize("text", ["a\x00", "\udce9"])
def test_what_no_database_takes_is_written_as_far_as_it_can_be(
    app: Celery, text: str
) -> None:
    """A replay that is sent and whose record fails would be sent twice."""
    letter = archived(app)

    replay_letter(app, letter, who=text, why=text, args=[text])

    assert len(published(app)) == 1
    letter.refresh_from_db()
    assert letter.replayed_at is not None
    entry = AuditEntry.objects.get()
    written = text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    assert [entry.who, entry.why, *entry.details["args"]] == [written] * 3


def test_a_replay_that_cannot_be_written_is_not_sent(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know of it."""
    letter = archived(app)

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseError("the connection is lost")

    monkeypatch.setattr(AuditEntry, "save", away)

    with pytest.raises(DatabaseError):
        replay_letter(app, letter, who="alice")

    assert published(app) == []
    letter.refresh_from_db()
    assert letter.replayed_at is None


def test_a_letter_is_replayed_once(app: Celery) -> None:
    """The second operator learns when it was replayed and as what."""
    letter = archived(app)
    task_id = replay_letter(app, DeadLetter.objects.get(), who="alice")

    with pytest.raises(ReplayError) as refused:
        replay_letter(app, letter, who="bob")  # read before alice replayed it

    assert task_id in str(refused.value)
    assert len(published(app)) == 1
    assert AuditEntry.objects.count() == 1


def test_a_letter_is_replayed_again_when_asked(app: Celery) -> None:
    """``again`` makes a new task with a new id."""
    letter = archived(app)

    first = replay_letter(app, letter, who="alice")
    second = replay_letter(app, letter, who="alice", again=True)

    assert first != second
    assert len(published(app)) == 2
    letter.refresh_from_db()
    assert letter.replayed_as == second


def test_a_purged_letter_cannot_be_replayed(app: Celery) -> None:
    """The error says that it is gone."""
    letter = archived(app)
    DeadLetter.objects.all().delete()

    with pytest.raises(ReplayError, match="is gone"):
        replay_letter(app, letter, who="alice")


@pytest.mark.usefixtures("broker_is_away")
def test_a_replay_that_the_broker_does_not_take_changes_nothing(app: Celery) -> None:
    """The letter stays as it was, without an audit entry."""
    letter = archived(app)

    with pytest.raises(BrokerUnreachable, match="connection refused"):
        replay_letter(app, letter, who="alice")

    letter.refresh_from_db()
    assert letter.replayed_at is None
    assert not AuditEntry.objects.exists()


def test_a_broker_that_kombu_does_not_know_is_named(app: Celery) -> None:
    """A wrong scheme is an error of ours, not a KeyError."""
    letter = archived(app)
    app.conf.broker_url = app.conf.broker_write_url = "nosuch://"

    with pytest.raises(BrokerUnreachable, match="nosuch"):
        replay_letter(app, letter, who="alice")


def test_arguments_can_be_edited(app: Celery) -> None:
    """What is given replaces what was in the message; the audit entry is redacted."""
    letter = archived(app, args=[42])

    replay_letter(app, letter, who="alice", args=[7], kwargs={"card_token": "s3cret"})

    (message,) = published(app)
    args, kwargs, _ = json.loads(message.body)
    assert (args, kwargs) == ([7], {"card_token": "s3cret"})
    details = AuditEntry.objects.get().details
    assert details["args"] == [7]
    assert details["kwargs"] == {"card_token": "[redacted]"}


def test_arguments_that_do_not_fit_are_refused(app: Celery) -> None:
    """They are checked against the signature before anything happens."""
    letter = archived(app)

    with pytest.raises(ReplayError, match="do not fit"):
        replay_letter(app, letter, who="alice", kwargs={"colour": "red"})

    assert published(app) == []
    letter.refresh_from_db()
    assert letter.replayed_at is None


def test_many_letters_are_replayed_oldest_first(app: Celery) -> None:
    """All of them, with an audit entry each."""
    letters = [archived(app) for _ in range(3)]

    report = _replay_all(app, Time())

    assert list(report.replayed) == [letter.pk for letter in letters]
    assert (report.left, report.skipped, report.stopped) == (0, {}, "")
    assert len(published(app)) == AuditEntry.objects.count() == 3


def test_a_replay_of_many_skips_what_cannot_be_replayed(app: Celery) -> None:
    """One bad letter does not keep the others; it is named with the reason."""
    good, done = archived(app), archived(app)
    replay_letter(app, done, who="bob")

    report = _replay_all(app, Time())

    assert list(report.replayed) == [good.pk]
    assert "was replayed at" in report.skipped[done.pk]


def test_a_replay_of_many_keeps_its_rate(app: Celery) -> None:
    """Five letters at two a second take two seconds."""
    for _ in range(5):
        archived(app)
    time = Time()

    _replay_all(app, time, rate=2)

    assert time.now == pytest.approx(1002)


def test_a_replay_of_many_stops_when_they_die_again(app: Celery) -> None:
    """After so many deaths the rest is left alone."""
    for _ in range(10):
        archived(app)
    time = Time()

    def die() -> None:
        for letter in list(DeadLetter.objects.exclude(replayed_as="")):
            if not DeadLetter.objects.filter(task_id=letter.replayed_as).exists():
                archived(app, task_id=letter.replayed_as)

    time.while_asleep = die
    report = _replay_all(app, time, rate=1, stop_after_deaths=3)

    assert report.died == 3
    assert len(report.replayed) == 3
    assert report.left == 7
    assert "3 of the replays" in report.stopped


@pytest.mark.usefixtures("broker_is_away")
def test_a_replay_of_many_stops_when_the_broker_is_away(app: Celery) -> None:
    """It says so, and leaves the letters as they were."""
    archived(app)
    archived(app)

    report = _replay_all(app, Time())

    assert "connection refused" in report.stopped
    assert (report.replayed, report.left) == ({}, 2)


def test_a_canary_that_dies_ends_the_run(app: Celery) -> None:
    """Only the canary was sent."""
    for _ in range(3):
        archived(app)
    time = Time()

    def die() -> None:
        canary = DeadLetter.objects.exclude(replayed_as="").get()
        archived(app, task_id=canary.replayed_as)

    time.while_asleep = die
    report = _replay_all(app, time, canary=True)

    assert (report.canary, report.stopped) == ("died", "the canary died")
    assert (len(report.replayed), report.died, report.left) == (1, 1, 2)


def test_the_rest_follows_a_canary_that_nothing_is_heard_of(app: Celery) -> None:
    """Without a result backend silence is the best news there is."""
    for _ in range(3):
        archived(app)
    time = Time()

    report = _replay_all(app, time, canary=True, canary_seconds=30)

    assert report.canary == "nothing"
    assert len(report.replayed) == 3
    assert time.now == pytest.approx(1030, abs=1)


@pytest.mark.parametrize(
    ("state", "canary", "replayed"), [("SUCCESS", "ended", 2), ("FAILURE", "died", 1)]
)
def test_a_result_backend_tells_at_once(
    app: Celery,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    canary: str,
    replayed: int,
) -> None:
    """Nobody waits for the end of the canary's seconds."""
    archived(app)
    archived(app)
    app.conf.result_backend = "cache+memory://"
    app.set_current()
    time = Time()

    def finish() -> None:
        sent = DeadLetter.objects.exclude(replayed_as="").get()
        app.backend.store_result(sent.replayed_as, None, state)

    time.while_asleep = finish
    report = _replay_all(app, time, canary=True)

    assert (report.canary, len(report.replayed)) == (canary, replayed)
    assert report.died == (1 if canary == "died" else 0)
    assert time.now < 1001


def test_what_dies_during_a_run_is_not_part_of_it(app: Celery) -> None:
    """A replay of all does not replay its own dead for ever."""
    archived(app)
    archived(app)
    time = Time()
    time.while_asleep = lambda: archived(app)

    report = _replay_all(app, time, rate=1)

    assert report.total == len(report.replayed) == 2


def test_a_purge_deletes_and_says_why(app: Celery) -> None:
    """The audit entry keeps the ids, the reasons and the count."""
    letters = [archived(app) for _ in range(3)]

    assert purge(DeadLetter.objects.all(), who="alice", why="test data") == 3

    assert not DeadLetter.objects.exists()
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.what, entry.why) == ("alice", "purge", "test data")
    assert entry.details["reasons"] == {"failed": 3}
    assert entry.details["task_ids"] == [letter.task_id for letter in letters]


def test_a_purge_takes_exactly_its_letters(app: Celery) -> None:
    """Other letters stay."""
    gone, kept = archived(app), archived(app)

    purge(DeadLetter.objects.filter(pk=gone.pk), who="alice", why="noise")

    assert DeadLetter.objects.get() == kept


@pytest.mark.parametrize("why", ["", "  "])
def test_a_purge_needs_a_reason(app: Celery, why: str) -> None:
    """Without one nothing is deleted."""
    archived(app)

    with pytest.raises(PurgeError, match="needs a reason"):
        purge(DeadLetter.objects.all(), who="alice", why=why)

    assert DeadLetter.objects.exists()


def test_the_audit_entry_of_a_large_purge_is_bounded(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts all letters and names some."""
    monkeypatch.setattr(operations, "AUDITED_IDS", 2)
    monkeypatch.setattr(operations, "CHUNK", 2)
    for _ in range(5):
        archived(app)

    purge(DeadLetter.objects.all(), who="alice", why="noise")

    details = AuditEntry.objects.get().details
    assert (details["letters"], len(details["task_ids"])) == (5, 2)


def test_a_purge_of_nothing_leaves_no_trace(app: Celery) -> None:
    """What did not happen is not audited."""
    assert purge(DeadLetter.objects.all(), who="alice", why="noise") == 0

    assert not AuditEntry.objects.exists()
