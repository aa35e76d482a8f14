"""What has ended here is known again after a lost connection, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from unstuck.core.clock import system_clock
from unstuck.core.delivery import Delivery
from unstuck.core.verdict import Ack, Bury, Reason, Requeue, Verdict
from unstuck.worker import echoes
from unstuck.worker.echoes import Echoes

DELIVERY = Delivery(task_id="1", task_name="task", queue="celery")


@pytest.mark.parametrize("verdict", [Ack(), Bury(Reason.FAILED)])
def test_what_ended_just_before_the_connection_was_lost_is_known(
    verdict: Verdict,
) -> None:
    """Its acknowledgement may not have arrived."""
    known = Echoes()
    known.settled(DELIVERY, verdict, in_time=True)
    assert not known.knows(DELIVERY)

    known.connection_lost()

    assert known.knows(DELIVERY)


def test_what_ended_after_the_connection_was_lost_is_known() -> None:
    """It could not be acknowledged at all."""
    known = Echoes()
    known.settled(DELIVERY, Ack(), in_time=False)

    assert known.knows(DELIVERY)


def test_another_attempt_and_another_strike_are_other_deliveries() -> None:
    """They are to run."""
    known = Echoes()
    known.settled(DELIVERY, Ack(), in_time=False)

    assert not known.knows(replace(DELIVERY, attempt=1))
    assert not known.knows(replace(DELIVERY, strikes=(system_clock(),)))
    assert not known.knows(replace(DELIVERY, task_id="2"))


def test_what_is_queued_again_comes_again() -> None:
    """Nobody may take it for an echo."""
    known = Echoes()
    at = system_clock() + timedelta(seconds=1)
    known.settled(DELIVERY, Requeue(at), in_time=False)

    assert not known.knows(DELIVERY)


def test_the_doubt_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id may be used again on purpose."""
    known = Echoes()
    known.settled(DELIVERY, Ack(), in_time=False)
    monkeypatch.setattr(echoes, "REMEMBER_SECONDS", 0)

    assert not known.knows(DELIVERY)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest doubts go first."""
    monkeypatch.setattr(echoes, "MOST", 2)
    known = Echoes()
    for number in range(3):
        known.settled(replace(DELIVERY, task_id=str(number)), Ack(), in_time=False)

    assert not known.knows(replace(DELIVERY, task_id="0"))
    assert known.knows(replace(DELIVERY, task_id="2"))
