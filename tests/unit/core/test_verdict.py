"""What can become of a message."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from unstuck.core.verdict import Ack, Bury, Reason, Requeue, Retry, Verdict

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_there_are_four_verdicts() -> None:
    """Ack, Retry, Requeue, Bury, and nothing else."""
    assert set(get_args(Verdict)) == {Ack, Retry, Requeue, Bury}


def test_a_retry_is_not_a_requeue() -> None:
    """One is the next attempt, the other the same one."""
    assert Retry(NOW) != Requeue(NOW)


@pytest.mark.parametrize(
    "verdict", [Ack(), Retry(NOW), Requeue(NOW), Bury(Reason.POISON)]
)
def test_a_verdict_is_not_changed_after_it_was_given(verdict: Verdict) -> None:
    """Frozen, and equal to its like."""
    with pytest.raises((AttributeError, TypeError)):
        verdict.at = NOW  # type: ignore[union-attr, misc]


def test_the_reasons_are_those_of_the_interface() -> None:
    """The words that rows, metrics and filters use."""
    assert [reason.value for reason in Reason] == [
        "failed",
        "soft_limit",
        "hard_limit",
        "poison",
        "lost",
        "rejected",
        "unknown_task",
        "undecodable",
    ]
