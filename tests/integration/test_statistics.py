"""Waits, runtimes and queues as real nodes see them, and who does the chores of all."""

from __future__ import annotations

import signal
from functools import partial
from urllib.parse import urlsplit

import pytest

from tests.crash.chaos import SOAK
from tests.integration.sending import send
from tests.integration.tables import rows
from tests.node import Site
from tests.sites import MakeSite
from tests.waiting import eventually

SEND = """
import time
from tests.project import tasks
sent = [
    ("long", tasks.sleep.delay(1)),
    ("behind", tasks.add.delay(1, 2)),
    ("late", tasks.add.apply_async((1, 2), countdown=2)),
]
answer = {"at": time.time(), **{name: result.id for name, result in sent}}
"""

FOUND = """
from unstuck.core.histogram import Histogram
from unstuck.models import QueueSample, TaskMinute, TaskRun
minutes = list(TaskMinute.objects.filter(task_name__endswith=".add"))
waits = Histogram.of(minute.waits for minute in minutes)
names = ("waiting", "oldest_seconds", "reserved", "delayed", "consumers")
answer = {
    "runs": {
        run.task_id: (run.ending, run.waited_seconds, run.started_at.timestamp())
        for run in TaskRun.objects.all()
    },
    "longest wait": waits.percentile(100),
    "waits": waits.total,
    "unknown": sum(minute.waits_unknown for minute in minutes),
    "runtimes": Histogram.of(minute.runtimes for minute in minutes).total,
    "sample": QueueSample.objects.filter(queue="celery").values(*names).last(),
    "letters": QueueSample.objects.filter(queue="unstuck.dead").exists(),
}
"""

SUCCEEDED = "SELECT sum(succeeded) FROM unstuck_taskminute"

LEADER = "SELECT node FROM unstuck_lease WHERE name = 'chores' AND until > "
NOW = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now')", "postgresql": "now()"}


DATABASES = ("sqlite", "postgresql") if SOAK else ("postgresql",)


def have_runs(site: Site, number: int) -> bool:
    """Whether so many runs are stored."""
    return rows(site, "SELECT count(*) FROM unstuck_taskrun") == [(number,)]


def test_waits_are_measured_and_queues_sampled(make_site: MakeSite) -> None:
    """From when a task was sent or due; each broker tells what it can of its queues."""
    site = make_site(UNSTUCK={"RECORD_SUCCESSES": True})
    is_streams = site.broker.startswith("unstuck+")
    tells = {"waiting"}
    if is_streams:
        tells |= {"reserved", "delayed", "consumers"}
    elif site.broker.startswith("amqp"):
        tells |= {"consumers"}
    with site.node("-c", "1", "-Q", "celery"):
        sent = site.python(SEND)
        # As a producer without unstuck does it.
        stock = send(site, "add", 1, 2)
        eventually(partial(have_runs, site, 4), 40)
        eventually(lambda: rows(site, SUCCEEDED) == [(4,)], 20)
        eventually(lambda: samples(site), 20)
        found = site.python(FOUND)

    runs = found["runs"]
    assert {ending for ending, *_ in runs.values()} == {"succeeded"}
    assert runs[sent["behind"]][1] > 0.5
    _, waited, started = runs[sent["late"]]
    assert 0 <= waited < started - sent["at"] - 1
    assert (runs[stock][1] is None) == (not is_streams)
    known = (found["waits"], found["unknown"])
    assert known == ((3, 0) if is_streams else (2, 1))
    assert found["runtimes"] == 3
    assert found["longest wait"] > 0.4
    assert found["letters"]
    sample = found["sample"]
    told = {name for name, value in sample.items() if value is not None}
    assert told - {"oldest_seconds"} == tells
    assert sample["consumers"] in (None, 0, 1)


def leader(site: Site) -> str:
    """Who does the chores now; empty when nobody does."""
    [*found] = rows(site, LEADER + NOW[urlsplit(site.database).scheme])
    return str(found[0][0]) if found else ""


def samples(site: Site) -> int:
    """How often queues were counted."""
    [(number,)] = rows(site, "SELECT count(DISTINCT at) FROM unstuck_queuesample")
    return int(number)


@pytest.mark.parametrize("database", DATABASES)
def test_when_the_leader_is_killed_another_one_leads(
    request: pytest.FixtureRequest, database: str
) -> None:
    """Within seconds, and goes on with what it did."""
    site: Site = request.getfixturevalue(f"{database}_archive")()
    with site.node("-n", "one@%h") as one:
        first = eventually(lambda: leader(site), 20)
        with site.node("-n", "two@%h"):
            eventually(lambda: samples(site), 20)
            status, shown = site.unstuck("status")
            before = samples(site)

            one.kill_tree()

            second = eventually(lambda: leader(site).replace(first, ""), 30)
            eventually(lambda: samples(site) > before, 20)

    assert first.startswith("one@")
    assert second.startswith("two@")
    assert status == 0
    assert f"Chores of the fleet are done by {first}" in shown


def test_a_leader_that_stops_makes_room(sqlite_archive: MakeSite) -> None:
    """The next one need not wait for its lease to end."""
    site = sqlite_archive()
    with site.node("-n", "one@%h") as one:
        first = eventually(lambda: leader(site), 20)
        with site.node("-n", "two@%h"):
            assert leader(site) == first
            one.send(signal.SIGTERM)
            assert one.wait() == 0
            assert leader(site) != first
            eventually(lambda: leader(site).startswith("two@"), 20)
