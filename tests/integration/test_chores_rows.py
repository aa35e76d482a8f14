"""Chores on both databases, and what happens when two do them at once."""

from __future__ import annotations

import pytest

from tests.node import Site

PRELUDE = """
import os
from datetime import timedelta
from django.db import connections
from tests.unit.recorder.seen import NOON, minute
from unstuck.core.histogram import Histogram
from unstuck.leases import Claim
from unstuck.models import Incident, Lease, Node, QueueSample, TaskMinute
from unstuck.queues import QueueFacts
from unstuck.recorder import database, facts, fleet, minutes, samples, spans
from unstuck.recorder.retention import prune_batch

LATER = NOON + timedelta(days=3)

def all_at_once(number, work):
    '''What several processes say that begin together.'''
    connections.close_all()
    start, go = os.pipe()
    answers, children = os.pipe(), []
    for place in range(number):
        if not (pid := os.fork()):
            os.close(go)
            os.read(start, 1)
            status = 1
            try:
                database.prepare()
                os.write(answers[1], str(int(work(place))).encode())
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    os.close(go)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    assert statuses == [0] * number, statuses
    return os.read(answers[0], 1000).decode()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest) -> Site:
    """A site with our tables in each database in turn."""
    made: Site = request.getfixturevalue(f"{request.param}_archive")()
    return made


def test_chores_come_to_the_same_on_each_database(site: Site) -> None:
    """Hours, samples, incidents: what unit tests say of one of them."""
    assert site.python(PRELUDE + CHORES) == {
        "hours": [["shop.send", 60, "", 6, "5:6"]],
        "samples": 2,
        "incidents": [
            ["node_lost", "lost@host", True],
            ["letters_waiting", "", False],
            ["release", "lost@host", False],
        ],
        "pruned": 0,
    }


CHORES = """
for number in range(3):
    for node in ("one@host", "two@host"):
        facts.store([minute(NOON + timedelta(minutes=number), node=node, waits="5:1")])
while spans.add_up(LATER):
    pass
for second in range(0, 120, 15):
    dead = QueueFacts(name="unstuck.dead", waiting=3)
    samples.store(NOON + timedelta(seconds=second), [dead])
while samples.thin(NOON + timedelta(days=2)):
    pass
node = Node.objects.create(
    name="lost@host", state="ready", started_at=NOON, seen_at=NOON, release="1.0"
)
for seconds in (61, 71):
    fleet.look_at_nodes(NOON + timedelta(seconds=seconds))
Node.objects.update(seen_at=NOON + timedelta(seconds=80))
fleet.look_at_nodes(NOON + timedelta(seconds=81))
fleet.look_at_letters(NOON + timedelta(minutes=9, seconds=30), "unstuck.dead")
fleet.look_at_releases()
Node.objects.all().delete()
answer = {
    "hours": list(TaskMinute.objects.values_list(
        "task_name", "span_minutes", "node", "succeeded", "waits"
    )),
    "samples": QueueSample.objects.count(),
    "incidents": [
        (one.kind, one.node, one.resolved_at is not None)
        for one in Incident.objects.order_by("pk")
    ],
    "pruned": prune_batch(NOON),
}
"""


def test_one_of_many_gets_the_lease(site: Site) -> None:
    """Whether it is there already or has never been."""
    assert site.python(PRELUDE + RACE) == ["1", "1"]


RACE = """
def take(_):
    return Claim("x", timedelta(minutes=1), database.writing).take()

answer = []
for _ in range(2):
    answer.append(str(all_at_once(6, take).count("1")))
    Lease.objects.update(until=NOON)
"""


def test_what_several_add_at_once_adds_up(site: Site) -> None:
    """Two nodes of one name, a leader that was thought dead: each counts once."""
    assert site.python(PRELUDE + TOGETHER) == [240, 240, [60]]


TOGETHER = """
def store(place):
    for number in range(10):
        parts = [
            minute(NOON, task_name=f"task{n}", waits="5:1") for n in range(6)
        ]
        facts.store(parts if place % 2 else parts[::-1])
    return True

def add_up(_):
    while spans.add_up(LATER):
        pass
    return True

all_at_once(4, store)
spans.BATCH = 1
all_at_once(3, add_up)
found = list(TaskMinute.objects.all())
answer = [
    sum(one.succeeded for one in found),
    Histogram.of(one.waits for one in found).total,
    sorted({one.span_minutes for one in found}),
]
"""
