"""Killing at random: nothing is lost, nothing is run by two at once, nothing is left."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from typing import Any, Protocol

import pytest

from tests.crash.chaos import (
    LOAD,
    NEVER_POISON,
    SOAK,
    Deaths,
    Descriptors,
    Record,
    Sender,
    check_tidy,
    judge,
    longest_lag,
    probing,
    runs_in,
    send,
    sized,
    wait_until_all_ended,
)
from tests.node import Node, Site
from tests.sites import MakeSite
from tests.waiting import eventually

SEED = random.randrange(10**6)


@pytest.mark.timeout(3600 if SOAK else 240)
def test_children_killed_at_random_instants(
    redis_site: MakeSite, valkey: Any, record_property: Record
) -> None:
    """SIGKILL of children, also in the middle of an answer: nothing lost or doubled."""
    kills, dice = sized(60, 1000), random.Random(SEED)
    site, deaths = redis_site(UNSTUCK=NEVER_POISON, HAZARD="slow_child"), Deaths()
    with (
        site.node("-c", "4", *LOAD) as node,
        Sender(site, dice) as sender,
        valkey.client() as client,
        probing() as probe,
    ):
        main = node.main
        sender.send_mixture(40)
        wait_until_all_ended(site, sender.sent, 60)
        check_tidy(node, site, 5)
        before = Descriptors.of(node)

        while len(deaths.at) < kills:
            if client.llen("celery") < 20:
                sender.send_mixture(20)
            time.sleep(dice.expovariate(1 / 0.1))
            if children := node.children_pids:
                deaths.kill(dice.choice(children))
        wait_until_all_ended(site, sender.sent, 120)
        eventually(lambda: not client.exists("celery", "unacked"), 30)

        check_tidy(node, site, 5)
        eventually(lambda: Descriptors.of(node).more_than(before) <= 3, 20)
        assert node.main == main, "main was restarted"
        node.send(signal.SIGTERM)
        assert node.wait() == 0

        judgement = judge(site, sender.sent, deaths.at)
        lag = longest_lag(site)
        record_property("children killed", len(deaths.at))
        record_property("children that killed themselves", len(site.events("suicide")))
        for name, value in judgement.numbers.items():
            record_property(name, value)
        record_property("longest lag of main (s)", round(lag, 2))
        record_property(
            "longest lag of an idle thread beside it (s)", round(probe.worst, 2)
        )
        judgement.check()
        # Beside other runs, main has less than a processor of its own.
        assert lag < sized(5, 1) + 3 * probe.worst

    loud = [i for i, name in sender.sent.items() if name == "fail_loudly"]
    assert {letter["task_id"] for letter in site.letters()} == set(loud)


class Restart(Protocol):
    """A server that keeps its port and its data."""

    def restart(self) -> None:
        """Stop and start again."""


@pytest.mark.timeout(3600 if SOAK else 240)
@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_a_broker_that_restarts_while_tasks_run(
    request: pytest.FixtureRequest, broker: str, record_property: Record
) -> None:
    """The node goes on: no process of it ends, what runs is not run again."""
    server: Restart = request.getfixturevalue(SERVERS[broker])
    site: Site = request.getfixturevalue(f"own_{broker}_site")
    rounds = sized(1, 10)
    waits, running, meanwhile = [], [], []
    with site.node("-c", "2", *LOAD) as node:
        processes = set(processes_of(node))
        for number in range(rounds):
            marker = site.directory / f"go-{number}"
            running.append(send(site, "hold", str(marker)))
            meanwhile.append(send(site, "work", 1.0))
            eventually(lambda: not unstarted(site, [*running, *meanwhile]), 20)
            server.restart()
            up = time.monotonic()
            after = eventually(lambda: try_to_send(site), 30)
            wait_until_all_ended(site, {after: "work"}, 60)
            waits.append(time.monotonic() - up)
            marker.touch()
            wait_until_all_ended(site, dict.fromkeys([*running, *meanwhile]), 30)
        assert processes == set(processes_of(node))
        time.sleep(2)  # Whatever would run again does so by now.

        judgement = judge(site, dict.fromkeys([*running, *meanwhile]), {})
        record_property("restarts", rounds)
        record_property("consumes again after, at most (s)", round(max(waits), 1))
        again = [i for i in meanwhile if len(site.events("start", id=i)) > 1]
        record_property("ended while the broker was away", len(meanwhile))
        record_property("of these, run again", len(again))
        assert judgement.lost == []
        assert judgement.overlapping == []
        assert set(judgement.doubled) <= set(meanwhile), "it was not lost"
        assert max(waits) < 15


SERVERS = {"redis": "own_valkey", "amqp": "own_rabbitmq"}


def processes_of(node: Node) -> list[int]:
    """All of a node but its supervisor."""
    kept = (node.main, node.probes_pid, *node.companions_pids)
    return [*kept, *node.children_pids]


def unstarted(site: Site, ids: list[str]) -> set[str]:
    """Those that have not begun."""
    return set(ids) - {run.task_id for run in runs_in(site)}


def try_to_send(site: Site) -> str | None:
    """Send a task, or nothing while the broker is not there."""
    with contextlib.suppress(OSError):
        return send(site, "work")
    return None
