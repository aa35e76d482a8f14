"""What is sent and run; only the nodes of a proof import it, so no worker knows it."""

from __future__ import annotations

import time
from typing import Any

from celery import shared_task

from unstuck.prove.apart import JOB
from unstuck.prove.ledger import FAILED, SUCCEEDED, note

TICK_SECONDS = 0.05


class Meant(Exception):
    """A job that was sent to fail."""


@shared_task(  # type: ignore[untyped-decorator] # Celery has no types
    name=JOB,
    bind=True,
    ignore_result=True,
    time_limit=120,
    soft_time_limit=100,
    max_retries=0,
)
def job(self: Any, ledger: str, seconds: float, fails: bool) -> None:
    """Take so long, saying now and then that it lives; then succeed or fail."""
    note(ledger, "start", self.request)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, TICK_SECONDS))
        note(ledger, "alive", self.request)
    note(ledger, "end", self.request, how=FAILED if fails else SUCCEEDED)
    if fails:
        raise Meant("This one was sent to become a dead letter.")
