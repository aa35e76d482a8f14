"""Killing at random: nothing is lost, nothing is run by two at once, nothing is left."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.crash.chaos import (
    LOAD,
    NEVER_POISON,
    SOAK,
    Deaths,
    Descriptors,
    Sender,
    check_tidy,
    judge,
    longest_lag,
    probing,
    sized,
    wait_until_all_ended,
)
from tests.sites import MakeSite
from tests.waiting import eventually

Record = Callable[[str, object], None]

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
    assert lag < 1 + 3 * probe.worst
    loud = [i for i, name in sender.sent.items() if name == "fail_loudly"]
    assert {letter["task_id"] for letter in site.letters()} == set(loud)
