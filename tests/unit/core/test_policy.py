"""What is allowed to a task that says nothing."""

from __future__ import annotations

from datetime import timedelta

from unstuck.core.policy import Policy


def test_the_defaults_are_those_of_the_interface() -> None:
    """3 retries after 60 s, 3 strikes in 72 h, 10 minutes for a deploy."""
    policy = Policy()

    assert policy.max_retries == 3
    assert policy.retry_delay.after(2, dice=0.5) == timedelta(seconds=60)
    assert (policy.max_strikes, policy.strike_window) == (3, timedelta(hours=72))
    assert not policy.retry_on_soft_limit
    assert not policy.retry_on_hard_limit
    assert not policy.at_most_once
    assert policy.rerun_after_child_lost
    assert policy.unknown_task_patience == timedelta(minutes=10)
