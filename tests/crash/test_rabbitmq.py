"""RabbitMQ, with nodes killed, connections closed, and servers restarted under load."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.crash.chaos import NEVER_POISON, SOAK, Record, sized
from tests.crash.streams import (
    Fleet,
    Ledger,
    Sender,
    fleet,
    kill_trees,
    tell_waits,
)
from tests.node import Site
from tests.sites import MakeSite
from tests.waiting import eventually

SEED = random.randrange(10**6)
KINDS = ["amqp", "quorum"]
"""Stock Celery's classic queue, and ours."""
DATABASE_AWAY = sized(2, 60)
"""So many seconds."""


@pytest.mark.timeout(1800 if SOAK else 240)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_tree_costs_seconds(
    request: pytest.FixtureRequest, kind: str, record_property: Record
) -> None:
    """SIGKILL of a whole node: what it ran runs again elsewhere, a second later."""
    make: MakeSite = request.getfixturevalue(f"{kind}_site")
    site = make(UNSTUCK=NEVER_POISON)
    ledger = Ledger(site.ledger_path)

    def ran_twice(task_id: str, killed: float) -> None:
        assert len(ledger.of(task_id)) == 2

    waits = kill_trees(site, ledger, sized(1, 30), ran_twice)

    tell_waits(record_property, "trees killed", waits)
    assert statistics.median(waits) <= sized(4, 2)
    assert max(waits) <= 6


class Trouble:
    """Breaks one thing after the other, and takes down how often."""

    def __init__(
        self, nodes: Fleet, rabbitmq: Any, postgres: Any, dice: random.Random
    ) -> None:
        self._nodes, self._dice = nodes, dice
        self._rabbitmq, self._postgres = rabbitmq, postgres
        self.done: Counter[str] = Counter()

    def run(self, rounds: int) -> None:
        """Let each happen so often, in any order, while the database goes away once.

        At the end all is there again.
        """
        with ThreadPoolExecutor(1) as beside:
            stopped = beside.submit(self._take, self.stop_database)
            for _ in range(rounds):
                acts = [self.kill_tree, self.close_connections, self.restart_broker]
                for act in self._dice.sample(acts, len(acts)):
                    self._take(act)
                    time.sleep(self._dice.uniform(0.5, 2))
            stopped.result()

    def _take(self, act: Callable[[], None]) -> None:
        act()
        self.done[act.__name__.replace("_", " ")] += 1

    def kill_tree(self) -> None:
        """SIGKILL of all processes of a node, which is then started again."""
        name = self._dice.choice(list(self._nodes.nodes))
        self._nodes.nodes[name].kill_tree()
        self._nodes.start(name)

    def close_connections(self) -> None:
        """All of them at once, as an operator can."""
        self._rabbitmq.ctl("close_all_connections", "tests")

    def restart_broker(self) -> None:
        """In order: what it has confirmed is there again."""
        self._rabbitmq.restart()

    def stop_database(self) -> None:
        """Letters wait on the broker meanwhile."""
        self._postgres.stop()
        time.sleep(DATABASE_AWAY)
        self._postgres.start()


@pytest.mark.timeout(3600 if SOAK else 240)
@pytest.mark.parametrize("kind", KINDS if SOAK else ["quorum"])
def test_conservation(
    request: pytest.FixtureRequest,
    kind: str,
    own_rabbitmq: Any,
    own_postgres: Any,
    record_property: Record,
) -> None:
    """Whatever breaks: each task that the broker took has ended, each failure is a letter."""
    site: Site = request.getfixturevalue(f"own_{kind}_site")
    site.settings = {"UNSTUCK": NEVER_POISON}
    site.database = own_postgres.database().url
    site.manage("migrate", "-v", "0")
    dice, rounds = random.Random(SEED), sized(1, 8)
    ledger = Ledger(site.ledger_path)
    with (
        fleet(site, "a@test", "b@test", options=("-c", "2")) as nodes,
        Sender(site) as sender,
        ThreadPoolExecutor(1) as beside,
    ):
        trouble = Trouble(nodes, own_rabbitmq, own_postgres, dice)
        over = beside.submit(trouble.run, rounds)
        while not over.done():
            sender.send_any(dice, 1.0)
            time.sleep(0.05)
        over.result()
        ledger.wait_for(sender.sent, 120)
        failed = {run.task_id for run in ledger.read().runs if run.how == "failed"}
        eventually(lambda: failed <= buried(site).keys(), 60)
        eventually(lambda: not any(site.queue_lengths("celery").values()), 60)

    letters = buried(site)
    runs = Counter(run.task_id for run in ledger.runs if run.attempt == 0)
    record_property("seed", SEED)
    record_property("seconds without the database", DATABASE_AWAY)
    for name, value in trouble.done.items():
        record_property(name, value)
    record_property("sent", len(sender.sent))
    record_property("sending raised", len(sender.unsure))
    record_property("buried", len(letters))
    record_property("run more than once", sum(n > 1 for n in runs.values()))
    assert ledger.ended >= sender.sent
    assert set(letters) == failed


def buried(site: Site) -> Counter[str]:
    """How many letters there are of each id."""
    return Counter(str(letter["task_id"]) for letter in site.letters())
