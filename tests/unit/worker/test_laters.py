"""What main has to do later is done once, whatever becomes of Celery's timer."""

from __future__ import annotations

import time
from collections.abc import Callable

from kombu.asynchronous.timer import Timer

from tests.waiting import eventually
from unstuck.worker.laters import Laters


def fire(timer: Timer) -> None:
    """Do what the event loop does in each round."""
    wait, entry = next(iter(timer), (None, None))
    if entry is not None and not wait:
        timer.apply_entry(entry)


def calls_into(seen: list[str]) -> Callable[[], None]:
    """A function that notes that it was called."""
    return lambda: seen.append("called")


def nobody_asks() -> None:
    """A beat that nobody looks at."""


def test_a_function_is_called_in_its_time() -> None:
    """And not before."""
    timer, seen = Timer(), list[str]()
    Laters(timer, nobody_asks).add(0.1, calls_into(seen))
    began = time.monotonic()

    def called() -> bool:
        fire(timer)
        return bool(seen)

    eventually(called, 5)

    assert time.monotonic() - began >= 0.1


def test_what_the_timer_has_forgotten_is_called_all_the_same() -> None:
    """Celery 5.6 empties it when a connection is lost."""
    timer, seen = Timer(), list[str]()
    laters = Laters(timer, nobody_asks)
    laters.add(0.0, calls_into(seen))
    timer.clear()
    laters.go_on()

    fire(timer)

    assert seen == ["called"]


def test_what_the_timer_has_kept_is_called_once() -> None:
    """Celery 5.7 leaves it alone."""
    timer, seen = Timer(), list[str]()
    laters = Laters(timer, nobody_asks)
    laters.add(0.0, calls_into(seen))
    laters.go_on()

    for _ in range(3):
        fire(timer)

    assert seen == ["called"]


def test_main_beats_between_what_is_due_together() -> None:
    """Each may wait for a broker for long, and the timer's own beat comes after all."""
    timer, seen = Timer(), list[str]()
    laters = Laters(timer, lambda: seen.append("beat"))
    for _ in range(3):
        laters.add(0.0, calls_into(seen))

    for _ in range(3):
        fire(timer)

    assert seen == ["beat", "called"] * 3
