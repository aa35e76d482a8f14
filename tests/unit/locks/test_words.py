"""What is said of a lock that cannot be had or kept."""

from __future__ import annotations

from datetime import UTC, datetime

from unstuck.locks import words
from unstuck.locks.backend import Busy, Held, Owner

RUN = Owner(
    token="1", born=1.0, pid=7, node="celery@w1", task_id="5f1c", task_name="shop.run"
)
THREAD = Owner(token="2", born=2.0, pid=8, node="web1")
HELD = Held(name="x", owner=RUN, since=1_800_000_000.5, fence=3, seconds_left=9)


def test_busy() -> None:
    """Which lock, who has it since when, and what to do."""
    error = words.busy("x", Busy(HELD), 0)

    assert str(error) == (
        "The lock 'x' is held by shop.run[5f1c], process 7 on celery@w1, since "
        "2027-01-15 08:00:00 UTC. Try again later, or give it more time (wait=, of a "
        "task lock_wait=); `manage.py unstuck locks list` shows who holds what."
    )
    assert error.name == "x"
    assert error.holder == words.Holder(
        task="shop.run",
        task_id="5f1c",
        node="celery@w1",
        pid=7,
        since=datetime(2027, 1, 15, 8, 0, 0, 500_000, UTC),
    )


def test_busy_after_a_while() -> None:
    """How long it was waited for is said in as many digits as matter."""
    assert "It was waited for 4.99 s." in str(words.busy("x", Busy(HELD), 4.99432))


def test_lost() -> None:
    """What may have happened, and what to look at."""
    error = words.lost("x", 30)

    assert error.name == "x"
    assert str(error).startswith("The lock 'x' was lost: its lease of 30 s was over")


def test_released() -> None:
    """By whom and why, where that is known."""
    error = words.lost("x", 30, "olga@web1: it hangs.")

    assert "was lost: it was released by olga@web1: it hangs. Another may" in str(error)


def test_a_deadlock() -> None:
    """Who holds what and waits for what, beginning with whoever is told."""
    error = words.deadlock("x", [("x", THREAD), ("y", RUN)])

    ours = "process 8 on web1"
    theirs = "shop.run[5f1c], process 7 on celery@w1"
    assert error.cycle == (
        f"{ours} holds 'y' and waits for 'x', which is held by {theirs}",
        f"{theirs} holds 'x' and waits for 'y', which is held by {ours}",
    )
    assert "\n".join(error.cycle) in str(error)
    assert error.name == "x"
