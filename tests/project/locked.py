"""Tasks that say which lock they run with, one for each way to meet a busy one."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import time
from contextlib import closing
from typing import Any

from celery import shared_task

from tests.project import ledger
from unstuck import LockBusy, lock


def _note(task: Any, event: str = "run", **facts: Any) -> None:
    request = task.request
    held = getattr(request, "lock", None)
    ledger.write(
        event,
        id=request.id,
        attempt=request.retries,
        task=task.name,
        fence=held.fence if held else None,
        pid=os.getpid(),
        at=time.time(),
        **facts,
    )


def _work(task: Any, seconds: float) -> str:
    _note(task)
    time.sleep(seconds)
    task.request.lock.check()
    _note(task, "end")
    return "done"


@shared_task(bind=True, lock="report:{user_id}")
def wait(self: Any, user_id: int, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(bind=True, lock="report:{user_id}", lock_wait=1)
def wait_in_vain(self: Any, user_id: int, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(bind=True, lock="report:{user_id}", on_busy="skip")
def skip(self: Any, user_id: int, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(
    bind=True,
    lock="report:{user_id}",
    on_busy="retry",
    max_retries=1,
    default_retry_delay=0.2,
)
def retry(self: Any, user_id: int, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(bind=True, lock="report:{user_id}", on_busy="fail")
def fail(self: Any, user_id: int, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(
    bind=True,
    lock="report:{user_id}",
    on_busy="fail",
    autoretry_for=(LockBusy,),
    max_retries=1,
    default_retry_delay=0.2,
)
def fail_and_try_again(self: Any, user_id: int, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(bind=True, lock="{task}", on_busy="skip", lock_lease=5)
def alone(self: Any, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(bind=True, lock="{task}", lock_lease=2)
def hold_the_interpreter(self: Any, seconds: int) -> str:
    """In C, with the GIL: no thread of this process runs meanwhile."""
    _note(self)
    ctypes.PyDLL(None).sleep(seconds)
    self.request.lock.check()
    _note(self, "end")
    return "done"


@shared_task(bind=True, lock="{task}", time_limit=2, soft_time_limit=None)
def beyond_hard_limit(self: Any) -> None:
    _note(self)
    time.sleep(60)


@shared_task(bind=True, lock="report:{user_id}", lock_lease=5)
def lose_it(self: Any, user_id: int, marker: str) -> None:
    _note(self)
    while not os.path.exists(marker):
        time.sleep(0.02)


@shared_task(
    bind=True,
    lock="unique:{user_id}",
    lock_from="publish",
    max_retries=1,
    default_retry_delay=0.2,
)
def unique(self: Any, user_id: int, failures: int = 0, seconds: float = 0.0) -> str:
    _note(self)
    time.sleep(seconds)
    if self.request.retries < failures:
        raise self.retry(exc=ValueError("not yet"))
    return "done"


@shared_task(bind=True, lock="unique:{user_id}", lock_from="publish", on_busy="skip")
def unique_or_the_first(self: Any, user_id: int, seconds: float = 0.0) -> str:
    return _work(self, seconds)


@shared_task(bind=True)
def after(self: Any, before: Any) -> str:
    _note(self)
    return f"{before}, then this"


@shared_task(bind=True, time_limit=60)
def ring(self: Any, run: str, place: int, size: int) -> str:
    """Hold one lock, and want that of the next: all together they would never end."""
    first, second = f"{run}:{place}", f"{run}:{(place + 1) % size}"
    with lock(first, wait=30):
        _note(self, f"{run} first", mono=time.monotonic())
        while ledger.count(f"{run} first") < size:
            time.sleep(0.02)
        _note(self, f"{run} wants", mono=time.monotonic())
        with lock(second, wait=30):
            _note(self, f"{run} both", mono=time.monotonic())
    return "done"


GUARD = """
CREATE TABLE guard (fence INTEGER, value INTEGER);
CREATE TABLE passed (fence INTEGER PRIMARY KEY, task_id TEXT);
INSERT INTO guard VALUES (0, 0);
"""
"""A row that takes only what comes with the highest fence that it has seen."""


@shared_task(bind=True, lock="guarded", lock_lease=2, lock_wait=600, time_limit=60)
def guarded(self: Any, path: str, seconds: float) -> None:
    """Read, take a while, and write: lost updates would show that two were here."""
    fence = self.request.lock.fence
    _note(self, "begin", mono=time.monotonic())
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
        change = "UPDATE guard SET fence = ? WHERE fence < ?"
        passes = database.execute(change, (fence, fence)).rowcount == 1
        (value,) = database.execute("SELECT value FROM guard").fetchone()
        time.sleep(seconds)
        database.execute("BEGIN IMMEDIATE")
        change = "UPDATE guard SET value = ? WHERE fence = ?"
        if passes and database.execute(change, (value + 1, fence)).rowcount:
            row = (fence, self.request.id)
            database.execute("INSERT INTO passed VALUES (?, ?)", row)
        else:
            passes = False
        database.execute("COMMIT")
    _note(self, "over", mono=time.monotonic(), passes=passes)
    self.request.lock.check()


@shared_task(bind=True, lock="{task}", lock_lease=3, on_busy="skip")
def lost_once(self: Any, marker: str) -> None:
    """Its process is killed; whoever runs it again finds the lock of the one before."""
    _note(self)
    if not os.path.exists(marker):
        open(marker, "w").close()
        time.sleep(60)
    _note(self, "end")


@shared_task(bind=True, lock="{task}", on_busy="skip", max_retries=12)
def retried_at_once(self: Any) -> None:
    """The next attempt can be there before this one has given its lock back."""
    _note(self)
    if self.request.retries < self.max_retries:
        raise self.retry(countdown=0)
    _note(self, "end")


@shared_task(bind=True, lock="{task}")
def calls_itself(self: Any, deep: int) -> None:
    """As one calls any function."""
    _note(self, "begin", deep=deep)
    if deep:
        calls_itself(deep - 1)
    _note(self, "over", deep=deep)
