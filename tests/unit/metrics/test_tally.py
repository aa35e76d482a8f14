"""Counts outlive the processes that made them, and are bounded whatever names come."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import pytest

from unstuck.core.facts import OTHERS, Minute, Minutes
from unstuck.core.histogram import Histogram
from unstuck.core.outcome import Ending
from unstuck.metrics import tally
from unstuck.metrics.tally import COUNTED, MOST_ROWS, Row, Tally, TaskTally

NOW = datetime(2026, 11, 2, 9, 14, tzinfo=UTC)
MAIN, SUPERVISOR = 0, 3


def minute(
    task: str = "shop.send", queue: str = "mail", *seconds: float, **ended: int
) -> Minute:
    """What main counts of runs that took so long, and ended so often in which way."""
    runs = Histogram()
    for each in seconds:
        runs.add(each)
    return Minute(
        minute=NOW,
        task_name=task,
        queue=queue,
        counts=ended,
        runtime_seconds=sum(seconds),
        runtimes=runs.to_wire(),
        swallowed=1,
    )


def only(counted: Tally) -> Row:
    [row] = counted.rows()
    return row


def test_the_process_that_counted_is_gone_and_what_it_counted_is_not() -> None:
    """The next one goes on with it: nothing goes backwards."""
    counted = Tally()
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            counted.sheet(MAIN).count("taken", by=2)
            counted.by_task().add(minute("shop.send", "mail", 0.1, succeeded=1))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    assert counted.total("taken") == {"": 6}
    row = only(counted)
    assert (row.task, row.queue) == ("shop.send", "mail")
    assert row.cells[tally.ENDED][tally.ENDINGS.index("succeeded")] == 3


def test_sheets_add_up() -> None:
    """Two processes count the same thing, each for itself."""
    counted = Tally()
    counted.sheet(MAIN).count("incidents", "deaf")
    counted.sheet(SUPERVISOR).count("incidents", "deaf", by=2)
    counted.sheet(SUPERVISOR).count("incidents", "something new")

    found = counted.total("incidents")

    assert (found["deaf"], found["other"], sum(found.values())) == (3, 1, 4)


def test_what_has_no_other_is_counted_under_its_own_name() -> None:
    """Each place is its own."""
    counted = Tally()
    for what, labels in COUNTED.items():
        for label in labels:
            counted.sheet(MAIN).count(what, label)

    for what, labels in COUNTED.items():
        assert counted.total(what) == dict.fromkeys(labels, 1)


def test_every_ending_but_a_put_off_has_its_place() -> None:
    """A new one needs no change here."""
    counted = Tally()
    endings = {ending.value: 1 for ending in Ending if ending is not Ending.LOCK_BUSY}
    counted.by_task().add(minute(**endings))  # type: ignore[arg-type]

    assert only(counted).cells[tally.ENDED] == [1] * len(endings)


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        (0.0, 0.015625),
        (0.3, 0.5),
        (4.9, 5.0),
        (29.0, 30.0),
        (250.0, 480.0),
        (5e3, None),
    ],
)
def test_a_run_is_in_the_bucket_of_its_length(
    seconds: float, bound: float | None
) -> None:
    """And its length is in the sum."""
    counted = Tally()
    counted.by_task().add(minute("a", "q", seconds, succeeded=1))

    cells = only(counted).cells[tally.RUN]

    place = tally.BOUNDS.index(bound) if bound else len(tally.BOUNDS)
    assert cells[place] == sum(cells[:-1]) == 1
    assert cells[-1] == int(seconds * tally.PER_SECOND)


def test_buckets_end_where_those_of_histograms_do() -> None:
    """So none of ours lies across a bound."""
    from unstuck.core.histogram import LAST, bounds

    ends = {bounds(bucket)[1] for bucket in range(LAST + 1)}
    assert set(tally.BOUNDS) <= ends


def test_a_main_that_was_killed_while_it_wrote_a_name() -> None:
    """It was not counted yet; the next one writes over it."""
    counted = Tally()
    counted._names[:100] = b"x" * 100
    counted.by_task().add(minute("a", "q", succeeded=1))

    assert (only(counted).task, only(counted).queue) == ("a", "q")


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    """Sums only grow."""
    counted = Tally()
    counted.by_task().add(minute("a", "q", -5.0, succeeded=1))

    assert only(counted).cells[tally.RUN][-1] == 0


def test_what_minutes_add_up_is_what_is_counted() -> None:
    """All columns, from the end of a run to the cell."""
    counted, minutes = Tally(), Minutes()
    for ending, ran in (("succeeded", 0.2), ("failed", 2.0), ("child_lost", None)):
        minutes.add("a", "q", ending, ran, 1.0, None, ending == "failed", NOW)
    by_task = counted.by_task()
    for one in minutes.flush(NOW, everything=True):
        by_task.add(one)

    cells = only(counted).cells
    assert sum(cells[tally.ENDED]) == 3
    assert (sum(cells[tally.RUN][:-1]), cells[tally.RUN][-1]) == (2, 2_200_000)
    assert (sum(cells[tally.WAIT][:-1]), cells[tally.WAIT][-1]) == (2, 2_000_000)
    assert cells[tally.SWALLOWED] == [1]


def test_verdicts_and_reasons() -> None:
    """A letter is both."""
    counted = Tally()
    by_task = counted.by_task()
    by_task.settle("a", "q", "bury", "poison")
    by_task.settle("a", "q", "retry")

    cells = only(counted).cells
    assert cells[tally.SETTLED] == [1, 0, 1]
    assert cells[tally.BURIED][tally.REASONS.index("poison")] == 1
    assert sum(cells[tally.BURIED]) == 1


def test_a_message_of_no_task_here_is_counted_without_its_name() -> None:
    """Its name is anybody's idea."""
    counted = Tally()
    counted.by_task().turn_away("q", "unknown_task", "bury", "unknown_task")

    row = only(counted)
    assert (row.task, row.queue) == ("", "q")
    assert sum(row.cells[tally.ENDED]) == sum(row.cells[tally.BURIED]) == 1


def flood(by_task: TaskTally, pairs: list[tuple[str, str]]) -> None:
    for task, queue in pairs:
        by_task.add(minute(task, queue, succeeded=1))


def test_a_bug_that_generates_tasks_is_bounded() -> None:
    """The rest of the tasks of a queue are counted together, and none is missing."""
    counted = Tally()
    by_task = counted.by_task()
    flood(by_task, [(f"task{n}", "mail") for n in range(1000)])
    flood(by_task, [("late", "sms")])

    rows = counted.rows()
    assert len(rows) <= MOST_ROWS
    assert {row.queue for row in rows if row.task == OTHERS} == {"mail", "sms"}
    assert _ended(rows) == 1001


def test_a_bug_that_generates_queues_is_bounded() -> None:
    """At the very last all are together."""
    counted = Tally()
    by_task = counted.by_task()
    flood(by_task, [("task", f"queue{n}") for n in range(1000)])

    rows = counted.rows()
    assert len(rows) == MOST_ROWS
    assert (rows[-1].task, rows[-1].queue) == (OTHERS, OTHERS)
    assert _ended(rows) == 1000


def _ended(rows: list[Row]) -> int:
    return sum(sum(row.cells[tally.ENDED]) for row in rows)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("pay\nment\0", "pay ment "),
        ("x" * 999, "x" * tally.LONGEST_NAME),
        ("\U0001f4a5" * 999, "\U0001f4a5" * tally.LONGEST_NAME),
        ("half \ud800", "half ?"),
        ("", ""),
    ],
)
def test_odd_names_are_made_to_fit(name: str, read: str) -> None:
    """The same one is found again, also by the next main."""
    counted = Tally()
    for _ in range(2):
        by_task: Any = counted.by_task()
        by_task.add(minute(name, name, succeeded=1))
        by_task.add(minute(name, name, succeeded=1))

    row = only(counted)
    assert (row.task, row.queue) == (read, read)
    assert sum(row.cells[tally.ENDED]) == 4
