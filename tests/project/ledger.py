"""What really ran: one line an event, appended in one write, read by the test."""

from __future__ import annotations

import json
import os
import time
from typing import Any

VARIABLE = "PROJECT_LEDGER"


def write(event: str, **facts: Any) -> None:
    """Add an event to the ledger. Survives SIGKILL right after."""
    line = json.dumps({"event": event, "pid": os.getpid(), "at": time.time(), **facts})
    ledger = os.open(
        os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    try:
        os.write(ledger, line.encode() + b"\n")
    finally:
        os.close(ledger)


def count(event: str) -> int:
    """How many such events are in the ledger."""
    with open(os.environ[VARIABLE]) as file:
        whole, _, _ = file.read().rpartition("\n")
    return sum(json.loads(line)["event"] == event for line in whole.splitlines())
