"""Only what has always been short lately is expected to be short."""

from __future__ import annotations

from unstuck.pool.pace import CERTAIN_AFTER, MOST_TOGETHER, SHORT_SECONDS, Pace


def after(*seconds: float) -> bool:
    pace = Pace()
    for each in seconds:
        pace.learn("task", each)
    return pace.is_short("task")


SHORT = (SHORT_SECONDS / 2,) * CERTAIN_AFTER


def test_a_new_task_is_not_known_to_be_short() -> None:
    """It may be anything."""
    assert not after()
    assert not after(*SHORT[1:])


def test_many_short_runs_make_it_short() -> None:
    """And those of another task do not."""
    pace = Pace()
    for seconds in SHORT:
        pace.learn("task", seconds)

    assert pace.is_short("task")
    assert not pace.is_short("other")


def test_the_shorter_they_are_the_more_at_once() -> None:
    """One of them that takes longer counts for a while."""
    pace = Pace()
    assert pace.at_once() == 2
    for _ in range(1000):
        pace.learn("task", 0.0001)
    assert pace.at_once() == MOST_TOGETHER

    pace.learn("task", SHORT_SECONDS / 2)

    assert pace.at_once() == 5
    for _ in range(1000):
        pace.learn("task", 0.0001)
    assert pace.at_once() == MOST_TOGETHER


def test_one_long_run_ends_the_certainty() -> None:
    """Until it has been short for long again."""
    assert not after(*SHORT, SHORT_SECONDS)
    assert not after(*SHORT, 9.0, *SHORT[1:])
    assert after(*SHORT, 9.0, *SHORT)
