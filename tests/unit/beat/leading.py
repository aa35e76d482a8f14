"""Beats within this process: leadership without a server, and time that is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.beat import Scheduler

from tests.unit.worker.projects import project
from unstuck.beat.sending import sending
from unstuck.core.errors import LockError, LocksUnreachable

NAME = "unstuck.beat:shop"


class Desk:
    """What all beats share."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.leader: object = None
        self.is_away = False


class FakeLeadership:
    """Leadership of a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def is_ours(self) -> bool:
        return self._desk.leader is self

    def ask(self) -> bool:
        if self._desk.leader is None and not self._desk.is_away:
            self._desk.leader = self
        return self.is_ours

    def confirm(self) -> None:
        self._reach()
        if not self.is_ours:
            raise LockError("another beat may lead by now", name=NAME)

    def give_up(self) -> None:
        if self.is_ours:
            self._desk.leader = None

    def notes(self) -> dict[str, str]:
        self._reach()
        return dict(self._desk.notes)

    def note(self, notes: Mapping[str, str]) -> None:
        self._reach()
        if self.is_ours:
            noted = {**self._desk.notes, **notes}
            self._desk.notes = {name: note for name, note in noted.items() if note}

    def _reach(self) -> None:
        if self._desk.is_away:
            raise LocksUnreachable("away", name=NAME)


class Sent(Scheduler):
    """A scheduler of a project, whose broker is a list."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sent: list[tuple[str, str]] = []
        self.refused: dict[str, Exception] = {}
        super().__init__(*args, **kwargs)

    def send_task(self, name: str, *args: Any, **options: Any) -> None:
        if name in self.refused:
            raise self.refused[name]
        self.sent.append((name, options["task_id"]))


def app_of(**schedules: Any) -> Any:
    """An app with entries that are sent so often."""
    entries = {
        name: {"task": name, "schedule": schedule}
        for name, schedule in schedules.items()
    }
    return project(beat_schedule=entries, result_expires=None)


def scheduler_of(app: Any, desk: Desk) -> Any:
    """The scheduler of a new leader, on what it inherits."""
    leadership = FakeLeadership(desk)
    desk.leader = leadership
    made = sending(Sent)(app=app)
    made.lead(NAME, leadership)
    return made


def turn(scheduler: Any, times: int = 20) -> float:
    """Ticks until nothing is due; how long it may sleep."""
    for _ in range(times):
        wait = scheduler.tick()
        if wait:
            return float(wait)
    raise AssertionError("always something is due")


def try_again(scheduler: Any, name: str) -> float:
    """Ticks as if the entry had waited for its next try."""
    scheduler.unsent.get(name).again_at = 0.0
    scheduler._heap = None
    return turn(scheduler)
