"""What really ran: one line an event, appended in one write, read as it grows.

It is a file of this host and neither the broker nor the database, so that it tells of
them what they do not know. The times are those of the monotonic clock that all
processes of a host share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

SUCCEEDED, FAILED, RETRIED = "succeeded", "failed", "retried"


def write(path: str, event: str, **facts: Any) -> None:
    """Add an event. Survives SIGKILL right after."""
    line = json.dumps({"event": event, "pid": os.getpid(), "at": time.time(), **facts})
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, line.encode() + b"\n")
    finally:
        os.close(ledger)


def note(path: str, event: str, request: Any, **facts: Any) -> None:
    """Add an event of a task's run: whose it is, and when on the shared clock."""
    whose = {"id": request.id, "attempt": request.retries, "node": request.hostname}
    write(path, event, **whose, mono=time.monotonic(), **facts)


@dataclass(eq=False)
class Run:
    """One run of one attempt of one id."""

    task_id: str
    attempt: int
    node: str
    pid: int
    start: float
    end: float | None = None
    how: str = ""
    last_sign: float = 0.0
    """When it last wrote anything."""


class Ledger:
    """What was written, as far as it was read."""

    def __init__(self, path: Path) -> None:
        self.runs: list[Run] = []
        self.ended: set[str] = set()
        """The ids of which a run has succeeded or failed."""

        self.mains: dict[str, int] = {}
        """Which process of each node has said last that it consumes."""

        self._path = path
        self._place = 0
        self._open: dict[tuple[int, str, int], Run] = {}

    @property
    def going_on(self) -> list[Run]:
        """The runs that have no end, whether their process lives or not."""
        return [run for run in self._open.values() if run.end is None]

    def read(self) -> Self:
        """Read what is new, up to the last whole line."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._place)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._place += len(whole) + len(newline)
            for line in whole.splitlines():
                self._take(json.loads(line))
        return self

    def of(self, task_id: str) -> list[Run]:
        """The runs of an id, in order."""
        return [run for run in self.read().runs if run.task_id == task_id]

    def _take(self, line: Mapping[str, Any]) -> None:
        if line["event"] == "ready":
            self.mains[line["node"]] = line["pid"]
        if "attempt" not in line:
            return
        key = (line["pid"], line["id"], line["attempt"])
        if line["event"] == "start":
            run = Run(line["id"], line["attempt"], line["node"], line["pid"], 0.0)
            run.start = line["mono"]
            self._open[key] = run
            self.runs.append(run)
        run = self._open[key]
        run.last_sign = line["mono"]
        if line["event"] == "end":
            run.end, run.how = line["mono"], line["how"]
            if run.how != RETRIED:
                self.ended.add(run.task_id)
