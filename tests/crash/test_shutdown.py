"""The end of a node: in order, in a hurry, and what becomes of its tasks."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.crash.chaos import (
    LOAD,
    SOAK,
    Record,
    Sender,
    judge,
    runs_in,
    sized,
    wait_until_all_ended,
)
from tests.node import Node, Site
from tests.sites import MakeSite
from tests.waiting import eventually

STOP_SECONDS = 10
"""What may come on top of the time that running tasks get."""


@pytest.mark.timeout(3600 if SOAK else 240)
def test_sigterm_under_load(redis_site: MakeSite, record_property: Record) -> None:
    """Again and again: in time, code 0, nothing lost, nothing run again needlessly."""
    rounds, grace = sized(4, 50), sized(3, 25)
    dice = random.Random(rounds)
    site = redis_site(
        CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT=grace, UNSTUCK={"MAX_STRIKES": 1}
    )
    seconds, late = [], []
    with Sender(site, dice) as sender:
        for _ in range(rounds):
            with site.node("-c", "2", *LOAD) as node:
                late.append(sender.send("work", 0.0, countdown=3600))
                eventually(lambda: late[-1] in node.log(), 20)
                sender.send("work", 1.0)
                count = len(site.events("start"))
                for _ in range(sized(40, 100)):
                    sender.send("work", dice.choice([0.0, 0.0, 0.0, 0.3]))
                eventually(lambda: len(site.events("start")) > count, 30)  # noqa: B023
                time.sleep(dice.random())
                seconds.append(end(node, grace))
            assert unfinished(site) == []
        ended = {run.task_id for run in runs_in(site)}
        # What has not run, the ETA tasks with it, is on the broker again.
        assert site.queue_lengths("celery") == {"celery": len(sender.sent) - len(ended)}
        assert not ended & set(late)
        rest = set(sender.sent) - set(late)
        with site.node("-c", "2", *LOAD) as node:
            wait_until_all_ended(site, dict.fromkeys(rest), 60)
            end(node, grace)

    judgement = judge(site, dict.fromkeys(rest), {})
    record_property("SIGTERMs", rounds)
    record_property("soft shutdown time (s)", grace)
    record_property("longest end (s)", round(max(seconds), 1))
    record_property("ETA tasks back on the broker", len(late))
    for name, value in judgement.numbers.items():
        record_property(name, value)
    judgement.check()
    assert judgement.again == 0
    assert site.letters() == []
    assert site.queue_lengths("celery")["celery"] == len(late)


def end(node: Node, grace: float) -> float:
    """SIGTERM; the seconds that the end took."""
    before = time.monotonic()
    node.send(signal.SIGTERM)
    assert node.wait(grace + STOP_SECONDS + 5) == 0
    return time.monotonic() - before


def unfinished(site: Site) -> list[str]:
    """The ids that have begun and not ended."""
    return [run.task_id for run in runs_in(site) if not run.end]


HURRIES: Mapping[str, tuple[signal.Signals, ...]] = {
    "two SIGTERMs": (signal.SIGTERM, signal.SIGTERM),
    "SIGQUIT": (signal.SIGQUIT,),
    "SIGTERM, then SIGQUIT": (signal.SIGTERM, signal.SIGQUIT),
}


@pytest.mark.parametrize(
    ("broker", "how"),
    [("redis", how) for how in HURRIES] + [("amqp", how) for how in HURRIES if SOAK],
)
def test_in_a_hurry(
    request: pytest.FixtureRequest, broker: str, how: str, record_property: Record
) -> None:
    """Now: what runs is handed back without a strike, nothing is lost."""
    make_site: MakeSite = request.getfixturevalue(f"{broker}_site")
    site = make_site(UNSTUCK={"MAX_STRIKES": 1})
    marker = str(site.directory / "go")
    sent: dict[str, Any] = {}
    with Sender(site, random.Random(0)) as sender:
        with site.node("-c", "2", *LOAD) as node:
            late = sender.send("work", 0.0, countdown=3600)
            eventually(lambda: late in node.log(), 20)
            running = [sender.send("hold", marker) for _ in range(2)]
            eventually(lambda: len(site.events("start")) == 2, 20)
            for _ in range(5):
                sender.send("work")
            before = time.monotonic()
            for number in HURRIES[how]:
                node.send(number)
                time.sleep(0.3)
            node.wait(STOP_SECONDS + 10)
            seconds = time.monotonic() - before
        assert site.queue_lengths("celery")["celery"] == len(sender.sent)
        (site.directory / "go").touch()
        with site.node("-c", "2", *LOAD):
            sent = {i: name for i, name in sender.sent.items() if i != late}
            wait_until_all_ended(site, sent, 40)

    record_property("ended after (s)", round(seconds, 1))
    judgement = judge(site, sent, dict.fromkeys(pids_of(site, running), 0.0))
    judgement.check()
    assert judgement.again == 2
    assert site.letters() == []
    assert seconds < STOP_SECONDS


def pids_of(site: Site, ids: list[str]) -> list[int]:
    """The processes that began with these."""
    return [run.pid for run in runs_in(site) if run.task_id in ids]
