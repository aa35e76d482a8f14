"""Jobs for the crash tests of the transport: each run says whose, which and when.

A worker imports it with `-I tests.project.streams`. The times are those of the monotonic
clock that all processes of a host share.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import shared_task

from tests.project import ledger
from unstuck.prove.ledger import note

TICK_SECONDS = 0.05
LONG = 600


def _note(event: str, task: Any, **facts: Any) -> None:
    note(os.environ[ledger.VARIABLE], event, task.request, **facts)


def _live(task: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, TICK_SECONDS))
        _note("alive", task)


@shared_task(bind=True, max_retries=None, time_limit=LONG, soft_time_limit=LONG - 1)
def job(
    self: Any,
    seconds: float = 0.0,
    retries: int = 0,
    fails: bool = False,
    payload: str = "",
) -> int:
    """Take so long; be retried so often; then succeed or fail."""
    _note("start", self)
    _live(self, seconds)
    if self.request.retries < retries:
        _note("end", self, how="retried")
        raise self.retry(countdown=0.5)
    _note("end", self, how="failed" if fails else "succeeded")
    if fails:
        raise ValueError("as asked for")
    return len(payload)


@shared_task(bind=True, time_limit=LONG, soft_time_limit=LONG - 1)
def hold(self: Any, marker: str) -> None:
    """Run until the file is there."""
    _note("start", self)
    while not os.path.exists(marker):
        _live(self, TICK_SECONDS)
    _note("end", self, how="succeeded")


@shared_task(bind=True, ignore_result=True)
def timed(self: Any, due: float) -> None:
    """Say how late it is, by the clock on the wall."""
    late = time.time() - due
    _note("start", self, late=late)
    _note("end", self, how="succeeded", late=late)
