"""What a channel may be able to do is asked of its class."""

from __future__ import annotations

from kombu.transport import memory

from unstuck.core.broker import is_lasting, lasting
from unstuck.core.errors import NotAllSent
from unstuck.transport.channel import Channel


def test_ours_is_lasting_and_others_are_not() -> None:
    """By what it can do, not by its name."""
    assert is_lasting(Channel)
    assert not is_lasting(memory.Channel)
    assert lasting(object()) is None


def test_not_all_sent_names_the_first_and_what_not_to_do() -> None:
    """The others can be looked up by their place."""
    refused = OSError("full")

    error = NotAllSent(["a", None, None], {1: refused, 2: refused})

    assert str(error) == (
        "2 of 3 tasks were not sent; the first is number 1: full. "
        "The others are: do not send them again."
    )
    assert error.failed == {1: refused, 2: refused}
    assert error.results == ["a", None, None]
