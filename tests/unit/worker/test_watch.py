"""Time limits in threads, without a worker around them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from unstuck.core.limits import Limits
from unstuck.worker import watch as watching
from unstuck.worker.watch import HardTimeLimitExceeded, Watch


@pytest.fixture
def watch() -> Iterator[Watch]:
    """A watch over the tasks of this process."""
    pool = SimpleNamespace(executor=SimpleNamespace(_max_workers=1))
    running = Watch(pool)
    running.start()
    yield running
    running.stop()


def loop() -> None:
    """Run Python code for as long as nobody interrupts."""
    while True:
        time.sleep(0.005)


def in_a_thread(watch: Watch, limits: Limits) -> BaseException | None:
    """What interrupts a loop in a thread of its own."""
    seen: list[BaseException] = []

    def task() -> None:
        try:
            with watch.over("id", lambda: limits):
                loop()
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=task)
    thread.start()
    thread.join(20)
    return seen[0] if seen else None


def test_the_soft_limit_raises_in_the_thread_of_the_task(watch: Watch) -> None:
    """As an exception that the task may handle."""
    error = in_a_thread(watch, Limits(soft=0.05, hard=5))

    assert isinstance(error, SoftTimeLimitExceeded)


def test_the_hard_limit_is_no_exception_that_except_exception_stops(
    watch: Watch,
) -> None:
    """It unwinds the task whatever the task thinks of it."""
    error = in_a_thread(watch, Limits(hard=0.05))

    assert isinstance(error, HardTimeLimitExceeded)
    assert not isinstance(error, Exception)


def test_a_limit_never_hits_the_next_task_of_the_thread(watch: Watch) -> None:
    """Runs that end around their limit, a thousand times in one thread."""
    hits = strays = 0
    for number in range(1000):
        try:
            with watch.over("id", lambda: Limits(soft=0.001)):
                time.sleep((number % 5) * 0.0005)
        except SoftTimeLimitExceeded:
            hits += 1
        try:
            for _ in range(20):
                time.sleep(0)
        except SoftTimeLimitExceeded:
            strays += 1

    assert strays == 0
    assert 0 < hits < 1000, "else this raced nothing"


def test_short_tasks_leave_nothing_behind(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their alarms are cleared away long before their time."""
    monkeypatch.setattr(watching, "ROOM", 10)
    watch._room = 10

    for _ in range(1000):
        with watch.over("id", lambda: Limits(soft=270, hard=300)):
            pass

    assert len(watch._alarms) <= 12
