"""What people are told."""

from __future__ import annotations

from collections import Counter
from typing import Any

from unstuck.prove import report
from unstuck.prove.account import CHILD_KILLED, NODE_FROZEN, Account, Loss
from unstuck.prove.ledger import SUCCEEDED, Run
from unstuck.prove.proof import Result

LOSSES = (
    Loss(CHILD_KILLED, 2, 2, pid=7),
    Loss(CHILD_KILLED, 5, 5, pid=8),
    Loss(NODE_FROZEN, 6, 8, node="a"),
)


def result(sent: str = "ab", on_broker: str = "", **more: Any) -> Result:
    """Two that succeeded, one of them after its child was killed."""
    runs = [
        Run("a", 0, "a", 7, 1, last_sign=2),
        Run("a", 0, "a", 8, 3.5, 4, SUCCEEDED, 4),
        Run("b", 0, "a", 8, 1, 2, SUCCEEDED, 2),
    ]
    facts: dict[str, Any] = {
        "account": Account(set(sent), set(), runs, Counter(), LOSSES, set(on_broker)),
        "losses": LOSSES,
        "id": "12345678",
        "kills_asked": 2,
        "letters": [],
        "archived": 0,
        "database_error": "",
        "seconds": 20.0,
        "lease": 5.0,
        "your_recovery": None,
        "ended_by_themselves": 0,
        "directory": "/tmp/kept",
        **more,
    }
    return Result(**facts)


def test_all_accounted_for() -> None:
    """It says what was proved, and against what."""
    found = result()

    assert found.is_proved
    assert report.conclusion(found) == (
        "PROVED: each of the 2 tasks is accounted for, although workers were killed "
        "2 times and frozen once. What had to run again (1) did so because of such a "
        "loss."
    )
    assert report.remarks(found) == []
    assert report.as_data(found)["recovery"] == {
        "kills": 1,
        "p50": 1.5,
        "p95": 1.5,
        "max": 1.5,
    }


def test_the_tables_add_up() -> None:
    """Sent is what succeeded, was buried, is in flight, or is missing."""
    (_, rows), hits, _ = report.tables(result("abcd", on_broker="c"))

    assert [row[:2] for row in rows] == [
        ("sent", 4),
        ("= succeeded", 2),
        ("+ buried", 0),
        ("+ still in flight", 1),
        ("+ MISSING", 1),
    ]
    assert (CHILD_KILLED, 2, 1) in hits[1]
    assert (report.NO_LOSS, "", 0) in hits[1]


def test_what_is_missing_is_named_with_what_to_do() -> None:
    """On stock Redis with its own reason, too."""
    found = result("abcd", on_broker="c")

    assert not found.is_proved
    conclusion = report.conclusion(found)
    assert conclusion.startswith("NOT PROVED: of 4 tasks 1 are missing.")
    assert "on the broker: d. " in conclusion
    assert "/tmp/kept" in conclusion
    stock = result("abcd", your_recovery=3600.0)
    assert "use unstuck+redis://" in report.conclusion(stock)


def test_a_run_without_a_loss_is_no_proof() -> None:
    """Nothing is missing, and yet something is wrong."""
    runs = [
        Run("a", 0, "a", 1, 1, 2, SUCCEEDED, 2),
        Run("a", 0, "a", 1, 3, 4, SUCCEEDED, 4),
    ]
    account = Account({"a"}, set(), runs, Counter(), ())

    found = result(account=account, losses=())

    assert not found.is_proved
    assert "without a loss" in report.conclusion(found)


def test_what_one_should_know_besides() -> None:
    """Each remark says what happened and what it means."""
    found = result(
        "abc",
        on_broker="c",
        kills_asked=5,
        database_error="no such table: unstuck_deadletter",
        ended_by_themselves=1,
        your_recovery=60.0,
    )

    stay, stock, kills, ended, database = report.remarks(found)
    assert found.is_proved
    assert stay.startswith(
        "Still on the broker when nothing had happened for a while: 1."
    )
    assert "with your settings after up to 60 s" in stock
    assert kills.startswith("Only 2 of 5 kills could be done")
    assert "ended by themselves once" in ended
    assert "no such table: unstuck_deadletter. " in database
    assert "migrate" in database
