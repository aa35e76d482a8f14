"""The three tiers: the same numbers, told apart as finely as the project wants."""

from __future__ import annotations

import pytest

from tests.unit.metrics.scraped import Scraped
from tests.unit.metrics.test_tally import minute
from unstuck.core.settings import TIERS
from unstuck.metrics import tally, tasks
from unstuck.metrics.tally import MOST_ROWS, Tally
from unstuck.metrics.text import to_text

PAIR = len(tally.ENDINGS) + len(tally.VERDICTS) + len(tally.REASONS) + 1
TIMES = len(tally.BOUNDS) + 3
"""Series of a histogram: the buckets, the one without a bound, the sum and the count."""


@pytest.fixture
def counted() -> Tally:
    """Two tasks, one of which comes by two queues, and a message of no task."""
    counted = Tally()
    by_task = counted.by_task()
    by_task.add(minute("send", "mail", 0.1, 0.2, succeeded=2))
    by_task.add(minute("send", "sms", 3.0, failed=1))
    by_task.add(minute("pay", "mail", 40.0, hard_limit=1))
    by_task.settle("pay", "mail", "bury", "hard_limit")
    by_task.turn_away("mail", "undecodable", "bury", "undecodable")
    return counted


def scrape(counted: Tally, tier: str) -> Scraped:
    return Scraped(to_text(tasks.readings(counted, tier)))


@pytest.mark.parametrize("tier", TIERS)
def test_totals_are_the_same_on_every_tier(counted: Tally, tier: str) -> None:
    """What is not told apart is added up."""
    seen = scrape(counted, tier)

    assert seen.total("unstuck_tasks_ended_total") == 5
    assert seen.total("unstuck_tasks_ended_total", ending="succeeded") == 2
    assert seen.total("unstuck_letters_buried_total", reason="hard_limit") == 1
    assert seen.total("unstuck_messages_settled_total", verdict="bury") == 2
    assert seen.total("unstuck_task_run_seconds_count") == 4
    assert seen.total("unstuck_task_run_seconds_sum") == pytest.approx(43.3)
    assert seen.total("unstuck_task_run_seconds_bucket", le="5") == 3
    assert seen.total("unstuck_task_run_seconds_bucket", le="+Inf") == 4


@pytest.mark.parametrize(
    ("tier", "labels"),
    [("node", set()), ("queue", {"queue"}), ("task", {"queue", "task"})],
)
def test_labels_by_tier(counted: Tally, tier: str, labels: set[str]) -> None:
    """And a wait is of its queue, on the finest as well."""
    seen = scrape(counted, tier)

    for name in ("unstuck_tasks_ended_total", "unstuck_task_run_seconds_bucket"):
        given = {frozenset(one.labels) - {"ending", "le"} for one in seen.found(name)}
        assert given == {frozenset(labels)}
    waits = seen.found("unstuck_task_wait_seconds_bucket")
    assert {frozenset(one.labels) - {"le"} for one in waits} == {
        frozenset(labels - {"task"})
    }


@pytest.mark.parametrize(
    ("tier", "series"),
    [
        ("node", PAIR + 2 * TIMES),
        ("queue", 2 * PAIR + 2 * 2 * TIMES),
        ("task", 4 * PAIR + (4 + 2) * TIMES),
    ],
)
def test_how_many_series_there_are(counted: Tally, tier: str, series: int) -> None:
    """As docs/metrics.md says: by pairs of task and queue, and by queues."""
    assert len(scrape(counted, tier).samples) == series


def test_a_node_that_has_done_nothing_says_so() -> None:
    """Zeros, so that the first of something is an increase. Labels it knows none yet."""
    assert len(scrape(Tally(), "node").samples) == PAIR + 2 * TIMES
    assert scrape(Tally(), "task").samples == []


def test_names_are_told_as_they_are() -> None:
    """And one that is of no task here by a word of ours."""
    counted = Tally()
    counted.by_task().add(minute('a "b" \\n', "q\\", succeeded=1))
    counted.by_task().turn_away("q\\", "undecodable", "bury", "undecodable")

    seen = scrape(counted, "task")

    ended = seen.found("unstuck_tasks_ended_total", queue="q\\", ending="succeeded")
    assert {one.labels["task"] for one in ended} == {'a "b" \\n', "(unknown)"}


def test_at_most_so_many_series() -> None:
    """However many names there are."""
    counted = Tally()
    by_task = counted.by_task()
    for number in range(500):
        by_task.add(minute(f"task{number}", "mail", succeeded=1))

    assert len(scrape(counted, "task").samples) <= MOST_ROWS * (PAIR + 2 * TIMES)
