"""Facts as rows: each once, minutes added up, and no fact keeps out another."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection

from tests.unit.recorder.seen import NOON, incident, minute, run
from unstuck.core.verdict import Reason
from unstuck.letters.letter import Letter
from unstuck.letters.message import StoredMessage
from unstuck.models import Incident, TaskMinute, TaskRun
from unstuck.recorder import facts

pytestmark = pytest.mark.django_db

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/billing.py", line 7, in charge
    raise ValueError("no")
ValueError: no
"""


def test_a_run_is_stored_with_all_that_is_known() -> None:
    """Every field has its column."""
    known: dict[str, Any] = {
        "task_name": "shop.charge",
        "queue": "slow",
        "ending": "soft_limit",
        "verdict": "retry",
        "ended_at": NOON,
        "started_at": NOON - timedelta(seconds=9),
        "attempt": 2,
        "deliveries": 3,
        "reason": "soft_limit",
        "cause": "c",
        "exception_type": "E",
        "exception_message": "m",
        "traceback": TRACEBACK,
        "stack": "s",
        "soft_stack": "soft",
        "swallowed_soft_limit": True,
        "waiting_for": "w",
        "node": "worker@host",
        "pid": 7,
        "waited_seconds": 0.25,
        "runtime_seconds": 9.5,
        "rss_bytes": 2**40,
        "rss_growth_bytes": -(2**20),
        "cpu_seconds": 0.5,
        "child_age_seconds": 60.5,
    }
    fact = run("abc", **known)

    facts.store([fact])

    row = TaskRun.objects.get()
    assert str(row.run_id) == fact.id
    assert row.task_id == "abc"
    assert {name: getattr(row, name) for name in known} == known


def test_a_run_and_its_dead_letter_share_their_fingerprint() -> None:
    """So that one leads to the other."""
    ending = {"exception_type": "ValueError", "traceback": TRACEBACK}
    letter = Letter(
        message=StoredMessage(body=b""),
        task_id="id",
        task_name="shop.send",
        reason=Reason.POISON,
        buried_at=NOON,
        **ending,
    )

    facts.store([run(ending="child_lost", reason="poison", **ending)])

    assert TaskRun.objects.get().fingerprint == letter.fingerprint
    assert letter.fingerprint == "poison | ValueError | charge (shop/billing.py)"


def test_a_plain_success_is_no_trouble() -> None:
    """And is not grouped with any."""
    facts.store([run(ending="succeeded", verdict="ack")])

    assert TaskRun.objects.get().fingerprint == ""


def test_a_run_that_was_not_buried_is_grouped_by_its_ending() -> None:
    """And by where it stood at its soft limit, if nothing else is known."""
    facts.store([run(ending="succeeded", verdict="ack", soft_stack=TRACEBACK)])

    assert TaskRun.objects.get().fingerprint == "succeeded | charge (shop/billing.py)"


def test_an_incident_is_stored_with_all_that_is_known() -> None:
    """Every field has its column."""
    known: dict[str, Any] = {
        "kind": "memory",
        "at": NOON,
        "process": "child",
        "what": "Out of memory; started again.",
        "node": "worker@host",
        "pid": 7,
        "stack": "s",
        "waiting_for": "w",
        "details": {"rss": 2**40},
    }
    fact = incident(**known)

    facts.store([fact])

    row = Incident.objects.get()
    assert str(row.incident_id) == fact.id
    assert {name: getattr(row, name) for name in known} == known


def test_runs_and_incidents_are_stored_once() -> None:
    """However often they come: a commit may have worked and not have been heard of."""
    seen = [run(), incident()]

    facts.store(seen)
    facts.store(seen)

    assert (TaskRun.objects.count(), Incident.objects.count()) == (1, 1)


def test_endings_have_their_columns() -> None:
    """A lost process and a lost node are one; what has no column is other."""
    endings = {
        "succeeded": 1,
        "failed": 2,
        "retried": 3,
        "soft_limit": 4,
        "hard_limit": 5,
        "child_lost": 6,
        "node_lost": 7,
        "revoked": 8,
        "of a newer version": 9,
    }

    facts.store([minute(counts=endings, swallowed=2)])

    row = TaskMinute.objects.get()
    assert (row.succeeded, row.failed, row.retried) == (1, 2, 3)
    assert (row.soft_limit, row.hard_limit, row.lost) == (4, 5, 13)
    assert (row.other, row.swallowed) == (17, 2)
    assert row.runs == sum(endings.values())


def test_parts_of_a_minute_add_up() -> None:
    """Within a batch and over several; the longest runtime is the longest of all."""
    parts = [
        minute(runtime_seconds=1.5, runtime_max=1.5, rss_growth_bytes=100),
        minute(runtime_seconds=4.0, runtime_max=3.0, rss_growth_bytes=-30),
        minute(counts={"failed": 2}, runtime_seconds=0.5, runtime_max=0.5),
    ]

    facts.store(parts[:2])
    facts.store(parts[2:])

    row = TaskMinute.objects.get()
    assert (row.minute, row.node, row.task_name, row.queue) == (
        NOON,
        "worker@host",
        "shop.send",
        "work",
    )
    assert (row.succeeded, row.failed) == (2, 2)
    assert (row.runtime_seconds, row.runtime_max) == (6.0, 3.0)
    assert row.rss_growth_bytes == 70


def test_histograms_of_runtimes_and_waits_add_up() -> None:
    """Within a batch and over several, with the sums, the longest and the unknown."""
    one = minute(runtimes="0:3 7:1", waits="5:2", wait_seconds=1.5, wait_max=1.0)
    other = minute(runtimes="7:1 8:1", wait_seconds=3.0, wait_max=3.0, waits_unknown=4)

    facts.store([one, other])
    facts.store([minute(), minute(waits="5:1 90:1", wait_seconds=0.5, wait_max=0.5)])

    row = TaskMinute.objects.get()
    assert (row.runtimes, row.waits) == ("0:3 7:2 8:1", "5:3 90:1")
    assert (row.wait_seconds, row.wait_max, row.waits_unknown) == (5.0, 3.0, 4)


def test_minutes_nodes_tasks_and_queues_have_rows_of_their_own() -> None:
    """Nothing is mixed up."""
    parts = [
        minute(),
        minute(NOON + timedelta(minutes=1)),
        minute(node="other@host"),
        minute(task_name="shop.mail"),
        minute(queue="slow"),
    ]
    random.shuffle(parts)

    facts.store(parts)

    assert list(TaskMinute.objects.values_list("succeeded", flat=True)) == [1] * 5


def test_names_that_are_shortened_alike_are_counted_together() -> None:
    """A column is as long as it is."""
    facts.store([minute(task_name="x" * 300), minute(task_name="x" * 301)])

    assert TaskMinute.objects.get().succeeded == 2


def test_a_batch_costs_few_queries(django_assert_max_num_queries: Any) -> None:
    """However many facts: a few statements for each kind."""
    seen = [run() for _ in range(20)] + [incident() for _ in range(20)]
    parts = [minute(task_name=f"task{number}") for number in range(30)]

    with django_assert_max_num_queries(12):
        facts.store([*seen, *parts])


def test_text_that_no_database_takes_is_made_sound() -> None:
    """NUL and half characters, which PostgreSQL refuses."""
    odd = "a\x00b\udc80"

    facts.store(
        [
            run(odd, stack=odd, exception_type=odd, node=odd * 200),
            minute(task_name=odd),
            incident(what=odd, details={odd: odd, "nan": float("nan")}),
        ]
    )

    sound = "a\\x00b\\udc80"
    row = TaskRun.objects.get()
    assert (row.task_id, row.stack, row.exception_type) == (sound, sound, sound)
    assert len(row.node) == 255
    assert TaskMinute.objects.get().task_name == sound
    assert Incident.objects.get().details == {sound: sound, "nan": "nan"}


def test_one_odd_fact_keeps_no_other_out(caplog: pytest.LogCaptureFixture) -> None:
    """It is left out and logged."""
    odd = [
        run("large", pid=2**70),
        run("negative", deliveries=-1),
        minute(counts={"x": None}),
        minute(waits="no histogram"),
    ]

    facts.store([run("1"), *odd, minute(), run("2")])

    assert {row.task_id for row in TaskRun.objects.all()} == {"1", "2"}
    assert TaskMinute.objects.get().succeeded == 1
    assert len(caplog.records) == 4
    assert "negative" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All or none, so that minutes can be stored again without being counted twice."""

    def away(*_: Any) -> None:
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(facts, "_run_row", lambda _: 1 / 0)
    monkeypatch.setattr(facts, "_incident_row", away)

    with pytest.raises(DatabaseError):
        facts.store([minute(), run(), incident()])

    assert not TaskMinute.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_without_our_tables_facts_wait() -> None:
    """Before `migrate` a worker is no less able to work."""
    with connection.schema_editor() as editor:
        editor.delete_model(Incident)
    try:
        with pytest.raises(DatabaseError):
            facts.store([minute(), incident()])
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(Incident)

    assert not TaskMinute.objects.exists()


def test_nothing_is_stored_of_nothing() -> None:
    """An empty batch is no error."""
    facts.store([])
