"""The account: what is missing, and why what ran again did."""

from __future__ import annotations

from collections import Counter
from typing import Any

from unstuck.prove.account import (
    CHILD_KILLED,
    MAIN_KILLED,
    NODE_FROZEN,
    TREE_KILLED,
    Account,
    Again,
    Loss,
)
from unstuck.prove.ledger import SUCCEEDED, Run


def ran(task_id: str, start: float, end: float | None = None, **facts: Any) -> Run:
    """A run on node `a`; one without an end gave its last sign a second later."""
    whose = {"attempt": 0, "node": "a", "pid": 1, **facts}
    run = Run(task_id=task_id, start=start, end=end, **whose)
    run.how, run.last_sign = (SUCCEEDED, end) if end else ("", start + 1)
    return run


def account(
    sent: str, runs: list[Run], losses: tuple[Loss, ...] = (), **more: Any
) -> Account:
    """The account of ids of one letter each."""
    facts = {"unsure": set(), "buried": Counter(), **more}
    return Account(sent=set(sent), runs=runs, losses=losses, **facts)


def test_what_was_sent_ends_in_one_of_four_ways() -> None:
    """It succeeds, is buried, is still on the broker, or is missing."""
    found = account(
        "abcd", [ran("a", 1, 2)], buried=Counter("b"), on_broker={"c", "elsewhere"}
    )

    assert found.succeeded == {"a"}
    assert found.in_flight == ["c"]
    assert found.missing == ["d"]


def test_what_was_perhaps_sent_counts_once_it_ran() -> None:
    """Else nobody can say that the broker ever had it."""
    found = account("", [ran("a", 1)], unsure={"a", "b"})

    assert found.missing == ["a"]


def test_a_run_is_repeated_because_of_what_hit_it() -> None:
    """A killed child is one process, a killed tree all of its node."""
    losses = (Loss(CHILD_KILLED, 2, 2, pid=7), Loss(TREE_KILLED, 2, 2, node="b"))
    runs = [
        *(ran("a", 1, pid=7), ran("a", 3, 4)),
        *(ran("b", 1, node="b"), ran("b", 8, 9)),
    ]

    found = account("ab", runs, losses)

    assert found.again == [Again("a", CHILD_KILLED), Again("b", TREE_KILLED)]
    assert found.unexplained == []


def test_a_run_that_nothing_hit_is_not_explained() -> None:
    """What happened to others, or long after it, is no reason."""
    losses = (Loss(CHILD_KILLED, 2, 2, pid=8), Loss(MAIN_KILLED, 9, 9, node="a"))

    found = account("a", [ran("a", 1, 2), ran("a", 3, 4)], losses)

    assert found.again == []
    [told] = found.unexplained
    assert told.startswith("a attempt 0: a/1 1.00-2.00; a/1 3.00-4.00")


def test_two_at_once_are_told_unless_one_was_frozen() -> None:
    """Whoever is frozen cannot know that others have taken over."""
    runs = [ran("a", 1, 5), ran("a", 3, 4, node="b")]
    killed = Loss(MAIN_KILLED, 2, 2, node="a")
    frozen = Loss(NODE_FROZEN, 2, 4, node="a")

    assert len(account("a", runs, (killed,)).overlapping) == 1
    assert account("a", runs, (frozen,)).overlapping == []


def test_recovery_is_until_the_last_that_a_kill_hit_runs_again() -> None:
    """From the kill on; a kill that hit nothing has none."""
    tree = Loss(TREE_KILLED, 2, 2.1, node="a")
    idle = Loss(CHILD_KILLED, 2, 2, pid=99)
    runs = [ran("a", 1), ran("b", 1, pid=2), ran("a", 5, 6), ran("b", 7, 8)]

    [recovery] = account("ab", runs, (tree, idle)).recoveries()

    assert recovery.loss is tree
    assert recovery.seconds == 5
