"""What is said of a node that does not answer any more."""

from __future__ import annotations

import logging

import pytest

from unstuck.transport.steward import _tell_of_death


@pytest.mark.parametrize(
    ("messages", "level"), [(3, logging.WARNING), (0, logging.INFO)]
)
def test_only_who_had_messages_is_a_warning(
    caplog: pytest.LogCaptureFixture, messages: int, level: int
) -> None:
    """A command that asked something leaves as quietly as it came."""
    with caplog.at_level(logging.INFO, "unstuck.transport.steward"):
        _tell_of_death("vm/1#a", messages)

    (record,) = caplog.records
    assert record.levelno == level
    assert "vm/1#a" in record.getMessage()
