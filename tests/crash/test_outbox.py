"""The outbox: what is committed runs, what is rolled back does not, whatever dies."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.crash.chaos import SOAK, Record, sized
from tests.node import ROOT, Site
from tests.waiting import eventually
from unstuck.dev import tether

SEED = random.randrange(10**6)
TABLE = (
    "from django.db import connection\n"
    "with connection.cursor() as cursor:\n"
    "    cursor.execute('CREATE TABLE orders (number integer, task_id varchar(50))')\n"
    "answer = None"
)
COMMITTED = (
    "from django.db import connection\n"
    "with connection.cursor() as cursor:\n"
    "    cursor.execute('SELECT task_id FROM orders')\n"
    "    answer = [row[0] for row in cursor.fetchall()]"
)


@pytest.mark.timeout(3600 if SOAK else 240)
@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_a_task_runs_if_and_only_if_its_transaction_is_committed(
    request: pytest.FixtureRequest,
    own_streams_site: Site,
    own_valkey: Any,
    database: str,
    record_property: Record,
) -> None:
    """Publishers killed, some right after a commit; the broker away half of the time."""
    site, dice = own_streams_site, random.Random(SEED)
    site.settings = {"CELERY_TASK_PUBLISH": "on_commit"}
    if database == "postgres":
        site.database = request.getfixturevalue("postgres").database().url
        site.manage("migrate", "-v", "0")
    site.python(TABLE)
    full = 10_000 if database == "postgres" else 1_000
    shop = Shop(site, sized(200 if database == "postgres" else 50, full), dice)

    with site.node("-c", "2"):
        with coming_and_going(own_valkey):
            shop.take_all_orders()
        committed = set(site.python(COMMITTED))
        ran = eventually(lambda: all_ran(site, committed), sized(100, 600))
        eventually(lambda: site.rows("OutboxMessage") == [], 30)
        time.sleep(1)  # Whatever should not run would do so by now.

    runs = [event["id"] for event in site.events("run")]
    record_property("transactions", len(site.events("order")))
    record_property("publishers killed", shop.killed)
    record_property("of these, right after a commit", shop.ended_by_themselves)
    record_property("tasks committed", len(committed))
    record_property("of these, run", len(committed & ran))
    record_property("run though rolled back", len(set(runs) - committed))
    record_property("run more than once", len(runs) - len(set(runs)))
    assert set(runs) == committed


class Shop:
    """Takes a number of orders, by processes that are killed."""

    def __init__(self, site: Site, orders: int, dice: random.Random) -> None:
        self._site, self._orders, self._dice = site, orders, dice
        self._deadly = sized(3, 1) / 100
        self.killed = 0
        self.ended_by_themselves = 0

    def take_all_orders(self) -> None:
        """One publisher after the other, until all are taken."""
        while (taken := len(self._site.events("order"))) < self._orders:
            with self._publisher(taken, self._orders - taken) as process:
                self._wait_or_kill(process)

    def _wait_or_kill(self, process: subprocess.Popen[bytes]) -> None:
        try:
            status = process.wait(self._dice.uniform(1, sized(8, 40)))
        except subprocess.TimeoutExpired:
            process.send_signal(tether.END_NOW)
            self.killed += 1
        else:
            if status == 0:
                return
            assert status == 128 + signal.SIGKILL, self._log.read_text()[-5000:]
            self.killed += 1
            self.ended_by_themselves += 1

    @contextlib.contextmanager
    def _publisher(self, first: int, count: int) -> Iterator[subprocess.Popen[bytes]]:
        self._log = self._site.directory / "publisher.log"
        words = [first, count, self._deadly, self._dice.random()]
        with self._log.open("ab") as log:
            process = tether.spawn(
                [sys.executable, "-m", "tests.project.orders", *map(str, words)],
                env=self._site.environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.send_signal(tether.END_NOW)
            process.wait()


@contextlib.contextmanager
def coming_and_going(valkey: Any) -> Iterator[None]:
    """A broker that is away half of the time; it is there in the end."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.wait(2):
            valkey.stop()
            over.wait(2)
            valkey.start()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def all_ran(site: Site, committed: set[str]) -> set[str]:
    """What ran, once all of these have."""
    ran = {event["id"] for event in site.events("run")}
    assert committed <= ran, f"{len(committed - ran)} of {len(committed)} did not run"
    return ran
