"""What a process has in hand and yet to say, with more than one thread."""

from __future__ import annotations

import time
from collections import deque

from unstuck.transport.desk import Desk


class Contended(deque[str]):
    """Another thread takes the last one, right after this one has seen it."""

    def __init__(self) -> None:
        super().__init__()
        self.taken_by_other: list[str] = []

    def popleft(self) -> str:
        """The first one, if it is not the last."""
        if len(self) == 1:
            self.taken_by_other.append(super().popleft())
        return super().popleft()


def test_no_acknowledgement_is_lost_between_two_that_take_them() -> None:
    """The event loop and the steward, which do not wait for each other."""
    desk = Desk("node")
    desk._acks = acks = Contended()
    for tag in ("1", "2", "3"):
        desk.reserve(tag)
        desk.ack(tag)

    assert desk.take_acks() == ["1", "2"]
    assert acks.taken_by_other == ["3"]
    assert desk.take_acks() == []


def test_only_what_is_in_hand_can_be_lost() -> None:
    """What came to its end meanwhile was said before, and is no zombie."""
    desk = Desk("node")
    for tag in ("ended", "running"):
        desk.reserve(tag)
    desk.ack("ended")

    desk.lose(["ended", "running"])
    desk.ack("ended")
    desk.ack("running")

    assert desk.zombies == 1
    assert desk.take_acks() == ["ended"]


def test_what_was_asked_for_before_we_were_away_is_not_taken() -> None:
    """The answer may come when others have what it brings."""
    desk, before = Desk("node"), time.monotonic()
    desk.reserve("in hand", before)

    assert desk.was_away() == ["in hand"]
    assert not desk.reserve("on its way", before)
    assert desk.reserve("asked for since", time.monotonic())
    assert desk.reserved == {"in hand", "asked for since"}
