"""Which endings are strikes."""

from __future__ import annotations

import pytest

from unstuck.core.outcome import Ending, Outcome

LOSSES = {Ending.CHILD_LOST, Ending.NODE_LOST}


def test_the_set_of_endings_is_closed() -> None:
    """The words of design.md, section 2."""
    assert [ending.value for ending in Ending] == [
        "succeeded",
        "failed",
        "retried",
        "soft_limit",
        "hard_limit",
        "child_lost",
        "node_lost",
        "rejected",
        "lock_busy",
        "skipped",
        "ignored",
        "revoked",
        "expired",
        "unknown_task",
        "undecodable",
    ]


@pytest.mark.parametrize("ending", Ending)
def test_only_a_lost_process_is_a_strike(ending: Ending) -> None:
    """No other ending counts towards MAX_STRIKES."""
    assert Outcome(ending=ending).is_strike is (ending in LOSSES)


@pytest.mark.parametrize("ending", LOSSES)
def test_a_deliberate_or_unstarted_loss_is_no_strike(ending: Ending) -> None:
    """The message is not to blame for it."""
    assert not Outcome(ending=ending, deliberate=True).is_strike
    assert not Outcome(ending=ending, started=False).is_strike
