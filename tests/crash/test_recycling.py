"""Children are replaced by tasks and by memory, and the successor is there before."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.crash.chaos import zombies_of
from tests.crash.traces import (
    MODULE,
    by_task,
    finish,
    marked,
    pid_of,
    rows,
    send,
    send_all,
    worker,
)
from tests.node import Site
from tests.processes import alive
from tests.project.hangs import MIB
from tests.sites import MakeSite
from tests.waiting import eventually

ALLOWED = 200
ALLOW = f"--max-memory-per-child={ALLOWED * 1024}"


def fewest_at_a_departure(site: Site) -> int:
    """How many children were there whenever one had gone, the fewest of all times.

    Children note themselves when they are born and when they are about to exit.
    """
    changes = [(event["at"], 1) for event in site.events("born")]
    changes += [(event["at"], -1) for event in site.events("gone")]
    there, fewest = 0, len(changes)
    for _, change in sorted(changes):
        there += change
        if change < 0:
            fewest = min(fewest, there)
    return fewest


@pytest.mark.parametrize(("most", "spares"), [(1, 0), (3, 1)])
def test_by_tasks(redis_site: MakeSite, most: int, spares: int) -> None:
    """No child runs more than it may, and none goes before there is another.

    The last task of each child does not end before the successor is born.
    """
    site = redis_site(UNSTUCK={"SPARES": spares})
    generations = 3
    with worker(site, "-c", "1", f"--max-tasks-per-child={most}") as node:
        for generation in range(1, generations + 1):
            finish(site, send_all(site, [("nothing", [])] * (most - 1)))
            last = send(site, "wait_for_a_birth", generation + 1 + spares)
            finish(site, [last])
        eventually(lambda: len(site.events("gone")) == generations, 20)
        gone = [event["pid"] for event in site.events("gone")]
        eventually(lambda: not alive(gone), 20)
        assert "ERROR" not in node.log()

    tasks = Counter(event["pid"] for event in site.events("run"))
    assert tasks == dict.fromkeys(gone, most)
    assert fewest_at_a_departure(site) >= 1


def test_by_tasks_when_all_are_short(redis_site: MakeSite) -> None:
    """No batch is longer than what a child may still run."""
    site = redis_site()
    with worker(site, "-c", "2", "--max-tasks-per-child=30") as node:
        finish(site, send_all(site, [("nothing", [])] * 300))
        assert "ERROR" not in node.log()

    tasks = Counter(event["pid"] for event in site.events("run"))
    assert sum(tasks.values()) == 300
    assert max(tasks.values()) <= 30


def test_neither_the_worn_nor_the_dead_pile_up(redis_site: MakeSite) -> None:
    """However fast children wear out, and however busy the supervisor is with forks."""
    site, slots, tasks = redis_site(), 8, 150
    with worker(site, "-c", str(slots), "--max-tasks-per-child=1") as node:
        supervisor, zombies, living = node.supervisor_pid, [], []
        send_all(site, [("nothing", [])] * tasks)

        def all_ran() -> bool:
            dead = zombies_of(supervisor)
            zombies.append(len(dead))
            living.append(len(set(node.children_pids) - set(dead)))
            return len(site.events("run")) == tasks

        eventually(all_ran, 90)

    assert max(zombies) < 3 * slots
    assert max(living) < 3 * slots


def test_by_memory(redis_site: MakeSite) -> None:
    """A child that has grown too large is replaced after its task, which succeeds."""
    site = redis_site(UNSTUCK={"SPARES": 0})
    with worker(site, "-c", "1", ALLOW) as node:
        finish(site, [send(site, "nothing")])
        grown = []
        for generation in (1, 2):
            finish(site, [task_id := send(site, "grow", ALLOWED)])
            grown.append(task_id)
            births = generation + 1
            eventually(lambda n=births: len(site.events("born")) == n, 20)
        pids = [pid_of(site, task_id) for task_id in grown]
        eventually(lambda: not alive(pids), 20)
        finish(site, [after := send(site, "nothing")])
        assert "ERROR" not in node.log()

    assert len(set(pids)) == 2
    assert pid_of(site, after) not in pids
    assert fewest_at_a_departure(site) >= 1


def test_twice_the_memory_is_a_loss_in_the_middle_of_a_task(
    redis_site: MakeSite,
) -> None:
    """Cause `memory`, with the stack; what stays below twice the limit comes to its end."""
    site = redis_site(UNSTUCK={"MAX_STRIKES": 1})
    with worker(site, "-c", "2", ALLOW):
        fat = send(site, "grow_and_wait", 3 * ALLOWED, 60)
        stout = send(site, "grow_and_wait", ALLOWED, 3)
        letter = site.letter(fat)
        run = by_task(site, "TaskRun", [fat])[fat]
        finish(site, [stout])

    function, source = marked(letter["stack"])
    assert letter["cause"].startswith("memory: ")
    assert f"of {ALLOWED} MiB allowed" in letter["cause"]
    assert letter["reason"] == "poison"
    assert letter["rss_bytes"] > 2 * ALLOWED * MIB
    assert letter["runtime_seconds"] < 30
    assert function == "grow_and_wait"
    assert source.endswith("# here")
    assert run["ending"] == "child_lost"
    assert run["cause"] == letter["cause"]
    assert site.events("end", id=fat) == []
    assert site.events("end", id=stout) != []


def test_growth_is_charged_to_the_task(redis_site: MakeSite) -> None:
    """`TaskMinute` tells which task it is that leaks."""
    site = redis_site()
    with worker(site, "-c", "1") as node:
        finish(site, send_all(site, [("nothing", [])] * 5 + [("grow", [40])] * 3))
        # The minute that is not over is told at the end.
        node.send(signal.SIGTERM)
        assert node.wait() == 0

    minutes = rows(site, "TaskMinute")
    growth: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for minute in minutes:
        name = minute["task_name"].removeprefix(f"{MODULE}.")
        growth[name] += minute["rss_growth_bytes"]
        runs[name] += minute["succeeded"]
    assert runs == {"nothing": 5, "grow": 3}
    assert 3 * 40 * MIB <= growth["grow"] < 3 * 60 * MIB
    assert growth["nothing"] < 20 * MIB
