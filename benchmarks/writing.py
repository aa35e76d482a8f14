"""Stores what so many tasks a second leave, with the classes of the recorder.

    writing.py SECONDS TASKS FAILING

For ``benchmarks/dashboard.py``. Facts are counted as main counts them, go through the
channel between processes, and are stored by an intake for each node; letters are stored in
batches as they come from the broker; one recorder leads, and adds minutes up.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

import django

django.setup()

from unstuck import Celery  # noqa: E402
from unstuck.core.clock import system_clock  # noqa: E402
from unstuck.core.facts import Minutes, Run  # noqa: E402
from unstuck.core.verdict import Reason  # noqa: E402
from unstuck.letters.letter import Letter  # noqa: E402
from unstuck.letters.message import StoredMessage  # noqa: E402
from unstuck.models import Node, TaskMinute  # noqa: E402
from unstuck.recorder import archive, spans  # noqa: E402
from unstuck.recorder.intake import Intake  # noqa: E402
from unstuck.worker.channel import FactChannel  # noqa: E402

NODES = 4
"""That run all of it."""

FLUSH_SECONDS = 5.0
"""How often main tells what it has counted."""

SEEN_SECONDS, ADD_UP_SECONDS = 10.0, 60.0
LETTERS_AT_ONCE = 100
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/billing/tasks.py", line {line}, in charge
    return client.call(order, timeout=30)
ValueError: the order was refused by the other side
"""


class Fleet:
    """Nodes that run tasks, their recorders in this one process."""

    def __init__(self, names: Sequence[str]) -> None:
        self._app = Celery("shop", broker="memory://", set_as_current=True)
        self._names = names
        self._lots = random.Random(7)
        nodes = list(Node.objects.order_by("name").values_list("name", flat=True))
        self._nodes = [_Node(name) for name in nodes[:NODES]]
        self._letters: list[Letter] = []
        self.tasks = self.runs = self.letters = 0
        self._flush_at = self._seen_at = self._add_up_at = time.monotonic()

    def run(self, tasks: int, failing: int) -> None:
        """Let so many tasks have run, and so many of them have failed."""
        now = system_clock()
        for number in range(tasks):
            node = self._nodes[number % len(self._nodes)]
            name = self._names[int(len(self._names) * self._lots.random() ** 2.5)]
            fails = number < failing
            node.minutes.add(
                name,
                "queue-1",
                "failed" if fails else "succeeded",
                self._lots.expovariate(10),
                self._lots.expovariate(20),
                4096,
                False,
                now,
            )
            if fails:
                task_id = str(uuid.uuid4())
                line = self._lots.randint(1, 400)
                node.channel.send(_run(task_id, name, node.name, line))
                self._letters.append(_letter(task_id, name, node.name, line))
        self.tasks += tasks

    def record(self) -> None:
        """Store what there is, as recorders do in their turns."""
        now = time.monotonic()
        if now >= self._flush_at:
            self._flush_at = now + FLUSH_SECONDS
            self.flush()
        for node in self._nodes:
            node.intake.take()
            while node.intake.store():
                pass
        while self._letters:
            batch = self._letters[:LETTERS_AT_ONCE]
            archive.store(self._app, batch)
            del self._letters[:LETTERS_AT_ONCE]
            self.letters += len(batch)
            self.runs += len(batch)
        if now >= self._seen_at:
            self._seen_at = now + SEEN_SECONDS
            Node.objects.update(seen_at=system_clock())
        if now >= self._add_up_at and not spans.add_up(system_clock()):
            self._add_up_at = now + ADD_UP_SECONDS

    def flush(self) -> None:
        """Have main tell what it has counted."""
        for node in self._nodes:
            for minute in node.minutes.flush(system_clock(), everything=True):
                node.channel.send(minute)

    @property
    def dropped(self) -> int:
        """Facts that nobody has stored."""
        return sum(one.intake.dropped + one.intake.left_out for one in self._nodes)


class _Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.minutes = Minutes(name)
        self.channel = FactChannel()
        self.intake = Intake(self.channel, node=name)


def _run(task_id: str, name: str, node: str, line: int) -> Run:
    return Run(
        task_id=task_id,
        task_name=name,
        queue="queue-1",
        ending="failed",
        verdict="bury",
        reason="failed",
        exception_type="ValueError",
        exception_message="the order was refused",
        traceback=TRACEBACK.format(line=line),
        ended_at=system_clock(),
        started_at=system_clock() - timedelta(seconds=1),
        runtime_seconds=1.0,
        node=node,
    )


def _letter(task_id: str, name: str, node: str, line: int) -> Letter:
    body = json.dumps([[line], {"card_token": "x"}, {"callbacks": None}]).encode()
    message = StoredMessage(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": task_id, "task": name, "root_id": task_id},
        properties={"correlation_id": task_id},
        queue="queue-1",
    )
    return Letter(
        message=message,
        task_id=task_id,
        task_name=name,
        reason=Reason.FAILED,
        buried_at=system_clock(),
        exception_type="ValueError",
        exception_message="the order was refused",
        traceback=TRACEBACK.format(line=line),
        node=node,
    )


def main(seconds: int, tasks: int, failing: int) -> None:
    """Write for so long, and say what was written a second."""
    names = TaskMinute.objects.order_by().values_list("task_name", flat=True).distinct()
    fleet = Fleet(list(names[:500]))
    print("begins", flush=True)
    began, steps, longest = time.monotonic(), 0, 0.0
    while (at := time.monotonic() - began) < seconds:
        due = int(at * 10) - steps
        for _ in range(due):
            fleet.run(tasks // 10, failing // 10)
        steps += due
        before = time.monotonic()
        fleet.record()
        longest = max(longest, time.monotonic() - before)
        time.sleep(max(0.0, (steps + 1) / 10 - (time.monotonic() - began)))
    fleet.flush()
    fleet.record()
    took = time.monotonic() - began
    rates = {name: round(getattr(fleet, name) / took, 1) for name in RATES}
    more = {"dropped": fleet.dropped, "longest_turn_seconds": round(longest, 2)}
    print(json.dumps(rates | more))


RATES = ("tasks", "runs", "letters")

if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
