"""A beat among several: it sends while it leads, and else has no schedule open."""

from __future__ import annotations

from typing import Any

from tests.unit.beat.leading import NAME, Desk, FakeLeadership, Sent, app_of
from unstuck.beat import candidate
from unstuck.beat.candidate import Candidate
from unstuck.beat.sending import sending


class Made:
    """A candidate, and what it did."""

    def __init__(self, desk: Desk) -> None:
        self.schedulers: list[Any] = []
        self.closed: list[Any] = []
        self.told: list[Any] = []
        self.signs = 0
        self.broken = False
        self.leadership = FakeLeadership(desk)
        self.candidate = Candidate(
            NAME,
            self.leadership,
            self._make,
            300,
            alive=self._sign,
            tell=self.told.append,
        )

    def _sign(self) -> None:
        self.signs += 1

    def _make(self) -> Any:
        if self.broken:
            raise OSError("no such file")
        scheduler: Any = sending(Sent)(app=app_of(often=60))
        scheduler.close = lambda: self.closed.append(scheduler)
        self.schedulers.append(scheduler)
        return scheduler


def test_one_leads_and_the_other_takes_over(monkeypatch: Any) -> None:
    """When it is closed; the one that waits has nothing open until then."""
    monkeypatch.setattr(candidate, "ASK_SECONDS", 0.0)
    desk = Desk()
    one, two = Made(desk), Made(desk)
    for _ in range(3):
        assert 0 <= one.candidate.tick() <= 0.5
        assert two.candidate.tick() == 0.5

    assert (len(one.schedulers), len(two.schedulers)) == (1, 0)
    assert one.told
    assert not two.told
    assert two.signs == 3

    one.candidate.close()
    assert one.closed == one.schedulers
    two.candidate.tick()
    assert len(two.schedulers) == 1


def test_one_that_has_lost_it_closes_its_schedule(monkeypatch: Any) -> None:
    """And asks to lead again, with a new one."""
    monkeypatch.setattr(candidate, "ASK_SECONDS", 0.0)
    desk = Desk()
    one = Made(desk)
    one.candidate.tick()

    desk.leader = object()
    one.candidate.tick()
    assert one.closed == one.schedulers
    desk.leader = None
    one.candidate.tick()
    assert len(one.schedulers) == 2


def test_one_that_fails_lets_another_lead(monkeypatch: Any, caplog: Any) -> None:
    """It goes on living, and says in full what it was, once."""
    monkeypatch.setattr(candidate, "AFTER_FAILURE_SECONDS", 0.0)
    desk = Desk()
    one = Made(desk)
    one.candidate.tick()

    def fail() -> None:
        raise ValueError("its table is gone")

    one.schedulers[0].tick = fail
    one.candidate._tick_at = 0.0
    one.candidate.tick()
    assert desk.leader is None
    assert "its table is gone" in caplog.text

    one.broken = True
    caplog.clear()
    for _ in range(3):
        one.candidate.tick()
    assert desk.leader is None
    assert caplog.text.count("Traceback") == 1

    one.broken = False
    one.candidate.tick()
    assert desk.leader is one.leadership
