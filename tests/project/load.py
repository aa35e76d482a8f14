"""Work for the crash tests, and a project that does what no project should.

A worker imports it with `-I tests.project.load`. Each run writes `start` and `end` with
the monotonic time that all processes of a host share, so that it can be proved that no
two runs of one id overlap. The setting `HAZARD` names what goes wrong beside the tasks.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Task, shared_task, signals
from django.conf import settings

from tests.project import ledger

LAG_SECONDS = 0.05
WORTH_NOTING_SECONDS = 0.3


@contextmanager
def _run(task: Any, **facts: Any) -> Iterator[None]:
    _note("start", task, **facts)
    try:
        yield
    finally:
        _note("end", task)


def _note(event: str, task: Any, **facts: Any) -> None:
    at = time.monotonic()
    ledger.write(event, id=task.request.id, task=task.name, mono=at, **facts)


# Work.


@shared_task(bind=True)
def work(self: Any, seconds: float = 0.0, payload: str = "") -> int:
    """Takes so long; a large payload travels to the child as a file."""
    with _run(self):
        if seconds:
            time.sleep(seconds)
    return len(payload)


@shared_task(bind=True, time_limit=600, soft_time_limit=500)
def hold(self: Any, marker: str) -> None:
    """Runs until the file is there."""
    with _run(self, marker=marker):
        while not os.path.exists(marker):
            _note("alive", self)
            time.sleep(0.02)


@shared_task(bind=True)
def with_family(self: Any, seconds: float) -> None:
    """Starts a process of its own, and ends it if it lives to do so."""
    with _run(self), subprocess.Popen(["sleep", "300"]) as process:
        _note("family", self, member=process.pid)
        time.sleep(seconds)
        process.kill()


@shared_task(bind=True)
def die_while_answering(self: Any, delay: float, marker: str) -> str:
    """The first run is killed from within, about when it sends its answer."""
    with _run(self):
        first = not os.path.exists(marker)
        if first:
            open(marker, "w").close()
    if first:
        threading.Thread(target=_die, args=(delay,), daemon=True).start()
    return "x" * 500


def _die(delay: float) -> None:
    time.sleep(delay)
    ledger.write("suicide", mono=time.monotonic())
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True)
def fail_loudly(self: Any, size: int) -> None:
    """Its answer is so large that it travels as a file."""
    with _run(self):
        raise ValueError("x" * size)


@shared_task(bind=True)
def ignore_sigterm(self: Any, seconds: float) -> None:
    """Cannot be ended politely."""
    with _run(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _note("ignoring", self)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.05)


@shared_task(bind=True)
def leave_an_orphan(self: Any) -> None:
    """Leaves a process behind whose parent is nobody of ours."""
    with _run(self):
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                time.sleep(0.3)
                ledger.write("orphan")
            os._exit(0)
        os.waitpid(pid, 0)


class Odd(BaseException):
    """Travels to another process, and cannot be unpacked there."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


@shared_task(bind=True)
def raise_what_cannot_travel(self: Any) -> None:
    with _run(self):
        raise Odd("a", "b")


class Forking(Task):
    """A base class whose hook forks."""

    def on_failure(
        self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(1)
            ledger.write("forked_hook", id=task_id)
            os._exit(0)
        ledger.write("on_failure", id=task_id)


@shared_task(bind=True, base=Forking)
def kill_with_forking_hook(self: Any) -> None:
    with _run(self):
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, base=Forking)
def fail_with_forking_hook(self: Any) -> None:
    with _run(self):
        raise ValueError("no")


@shared_task(bind=True)
def tick(self: Any) -> None:
    """What beat sends."""
    _note("tick", self)


@signals.beat_embedded_init.connect
def _say_who_is_beat(**_: Any) -> None:
    ledger.write("beat")


# What main says of itself.


@signals.worker_ready.connect
def _watch_main(sender: Any, **_: Any) -> None:
    """Write down whenever main's event loop did not turn for long."""
    ledger.write("main", mono=time.monotonic())
    hub = getattr(sender, "hub", None)
    if hub is None:
        return
    last = time.monotonic()

    def turn() -> None:
        nonlocal last
        now = time.monotonic()
        lag = now - last - LAG_SECONDS
        last = now
        if lag > WORTH_NOTING_SECONDS:
            ledger.write("lag", seconds=lag, mono=now)

    hub.call_repeatedly(LAG_SECONDS, turn)


# What no project should do.


def _exit_when_ready(**_: Any) -> None:
    os._exit(3)


def _raise_in_child(**_: Any) -> None:
    raise ValueError("not today")


def _hang_in_child(**_: Any) -> None:
    if not os.path.exists(settings.HAZARD_MARKER):
        ledger.write("hangs")
        time.sleep(3600)


def _exit_in_child(**_: Any) -> None:
    if not os.path.exists(settings.HAZARD_MARKER):
        ledger.write("exits")
        sys.exit(5)


def _be_slow_in_child(**_: Any) -> None:
    time.sleep(random.random() / 10)


def _start_a_thread() -> None:
    threading.Thread(
        target=time.sleep, args=(3600,), name="early-bird", daemon=True
    ).start()


def _let_forks_fail() -> None:
    fork = os.fork

    def fork_now_and_then() -> int:
        if os.path.exists(settings.HAZARD_MARKER):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    os.fork = fork_now_and_then


def _hurry() -> None:
    from unstuck.pool import watch

    watch.START_SECONDS = 2


_hazard = getattr(settings, "HAZARD", "")
if _hazard == "exit_when_ready":
    signals.worker_ready.connect(_exit_when_ready, weak=False)
elif _hazard == "raise_in_child":
    signals.worker_process_init.connect(_raise_in_child, weak=False)
elif _hazard == "exit_in_child":
    signals.worker_process_init.connect(_exit_in_child, weak=False)
elif _hazard == "hang_in_child":
    _hurry()
    signals.worker_process_init.connect(_hang_in_child, weak=False)
elif _hazard == "slow_child":
    signals.worker_process_init.connect(_be_slow_in_child, weak=False)
elif _hazard == "thread":
    _start_a_thread()
elif _hazard == "no_fork":
    _let_forks_fail()
