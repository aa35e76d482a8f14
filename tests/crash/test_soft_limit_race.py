"""A soft limit that fires as its task ends is nobody else's."""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.crash.chaos import sized
from tests.crash.traces import finish, pid_of, rows, send_all, worker
from tests.project.hangs import RACED_LIMIT
from tests.sites import MakeSite
from tests.waiting import eventually

RACES = int(os.environ.get("UNSTUCK_RACES", sized(300, 10_000)))
"""How many tasks race their limit."""

SHORTEST, LONGEST = 0.5 * RACED_LIMIT, 2 * RACED_LIMIT
SEED = random.randrange(10**6)


def test_a_late_signal_does_not_reach_the_next_task(redis_site: MakeSite) -> None:
    """The signal is held back until the next task of the same process begins."""
    site = redis_site()
    with worker(site, "-c", "1") as node:
        for _ in range(2):
            keeps, lets_in = send_all(
                site, [("keep_the_signal", []), ("let_the_signal_in", [])]
            )
            assert finish(site, [keeps, lets_in]) == [None, True]
            assert pid_of(site, keeps) == pid_of(site, lets_in)
        assert "is buried" not in node.log()


@pytest.mark.timeout(240 + RACES / 5)
def test_tasks_that_race_their_soft_limit(
    redis_site: MakeSite, record_property: Callable[[str, object], None]
) -> None:
    """Each is interrupted by its own limit or by none; what runs between, never.

    The tasks are short, so that children have several at once and go from one to the
    next without asking main: the next one runs when the signal comes.
    """
    site, dice = redis_site(), random.Random(SEED)
    print(f"seed {SEED}")
    durations = [dice.uniform(SHORTEST, LONGEST) for _ in range(RACES)]
    calls = [call for d in durations for call in (("race", [d]), ("bystander", []))]
    with worker(site, "-c", "2", "--max-tasks-per-child=1000000") as node:
        # Both have proved that they are short before they are sent in masses.
        proof = send_all(site, [("bystander", [])] * 40 + [("race", [0])] * 40)
        eventually(lambda: len(site.events("run")) == len(proof), 30)
        sent = send_all(site, calls)
        everything = len(proof) + len(sent)
        eventually(lambda: len(site.events("run")) >= everything, 60 + RACES / 20)
        with site.client() as app:
            states = {task_id: end_of(app, task_id) for task_id in sent}
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        log = node.log()

    racers, bystanders = sent[::2], sent[1::2]
    meant = set(re.findall(r"Soft time limit .* exceeded for \S+\[(.+)\]", log))
    interrupted = [event["id"] for event in site.events("interrupted")]
    ends = Counter(states[task_id] for task_id in racers)
    runs = rows(site, "TaskRun")
    swallowed = {run["task_id"] for run in runs if run["swallowed_soft_limit"]}
    beyond = {run["task_id"] for run in runs if run["ending"] == "soft_limit"}
    record_property("interrupted", len(interrupted))
    record_property("late signals", len(meant) - len(interrupted))
    assert {states[task_id] for task_id in bystanders} == {"SUCCESS"}
    assert ends["SUCCESS"] + ends["FAILURE"] == RACES
    assert ends["FAILURE"] == len(beyond)
    assert len(runs) == len(swallowed) + len(beyond)
    assert len(interrupted) == len(set(interrupted))
    assert swallowed | beyond >= set(interrupted)
    assert {*proof[40:], *racers} >= meant >= swallowed | beyond
    assert 0 < len(meant) < RACES
    assert len({event["pid"] for event in site.events("run")}) <= 3, "a child has died"


def end_of(app: Any, task_id: str) -> str:
    """The state that a task has ended in."""

    def state() -> str | None:
        found = str(app.backend.get_state(task_id))
        return found if found in ("SUCCESS", "FAILURE") else None

    return str(eventually(state, 60))
