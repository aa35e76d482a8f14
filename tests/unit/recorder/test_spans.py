"""Old minutes are added up, and nothing that was counted is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.recorder.seen import NOON, minute
from unstuck.models import TaskMinute
from unstuck.recorder import facts, spans
from unstuck.recorder.spans import add_up

pytestmark = pytest.mark.django_db

LATER = NOON + timedelta(days=3)


def add_all_up() -> int:
    """Add up until nothing is left; says in how many parts."""
    parts = 0
    while add_up(LATER):
        parts += 1
    return parts


def test_the_minutes_of_all_nodes_become_one_hour() -> None:
    """Counts, sums, the longest and histograms are those of all."""
    known = {"runtime_seconds": 2.0, "waits": "5:1", "wait_seconds": 0.5}
    facts.store(
        [
            minute(NOON + timedelta(minutes=5 * number), node=node, **known)
            for number in range(12)
            for node in ("one@host", "two@host")
        ]
    )
    facts.store([minute(NOON, counts={"failed": 1}, runtime_max=9.0, runtimes="60:1")])

    add_all_up()

    hour = TaskMinute.objects.get()
    assert (hour.minute, hour.span_minutes, hour.node) == (NOON, 60, "")
    assert (hour.succeeded, hour.failed, hour.runs) == (24, 1, 25)
    assert (hour.runtime_seconds, hour.runtime_max) == (48.0, 9.0)
    assert (hour.waits, hour.wait_seconds, hour.runtimes) == ("5:24", 12.0, "60:1")


def test_hours_tasks_and_queues_stay_apart() -> None:
    """Nothing is mixed up."""
    parts = [
        minute(),
        minute(NOON + timedelta(minutes=60)),
        minute(task_name="shop.mail"),
        minute(queue="slow"),
    ]
    facts.store(parts)

    add_all_up()

    assert [hour.succeeded for hour in TaskMinute.objects.all()] == [1] * 4


@pytest.mark.parametrize(
    ("age", "span", "node"),
    [
        (timedelta(minutes=4), 1, "worker@host"),
        (timedelta(minutes=6), 1, ""),
        (timedelta(minutes=119), 1, ""),
        (timedelta(minutes=121), 15, ""),
        (timedelta(hours=24, minutes=59), 15, ""),
        (timedelta(hours=25, minutes=1), 60, ""),
    ],
)
def test_rows_are_as_fine_as_their_age_needs(
    age: timedelta, span: int, node: str
) -> None:
    """Of all nodes after minutes, of a quarter of an hour after hours, then of one."""
    at = LATER - age
    facts.store([minute(at)])

    add_all_up()

    row = TaskMinute.objects.get()
    assert (row.span_minutes, row.node) == (span, node)
    assert row.minute.minute == at.minute // span * span


def test_each_step_goes_on_from_the_one_before() -> None:
    """Minute by minute, as the chore does: the sum stays the same."""
    at = LATER - timedelta(days=1, hours=3)
    facts.store([minute(at + timedelta(minutes=5 * n)) for n in range(24)])
    facts.store([minute(at, node="two@host")])

    for hours in range(0, 30, 2):
        while add_up(at + timedelta(hours=hours)):
            pass

    rows = TaskMinute.objects.order_by("minute")
    assert [(row.span_minutes, row.node, row.succeeded) for row in rows] == [
        (60, "", 13),
        (60, "", 12),
    ]


def test_it_goes_by_parts_and_late_minutes_are_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An hour that is there grows."""
    monkeypatch.setattr(spans, "BATCH", 2)
    facts.store([minute(NOON + timedelta(minutes=number)) for number in range(5)])
    assert add_all_up() == 4
    facts.store([minute(NOON + timedelta(minutes=59))])

    add_all_up()

    assert TaskMinute.objects.get().succeeded == 6
