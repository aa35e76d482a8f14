"""Every hang ends at its hard limit, and its letter says where and at what it hung.

One worker, all hangs at once: each test looks at what one of them left behind.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
import pytest
import redis

from tests.crash.traces import (
    Row,
    by_task,
    finish,
    marked,
    pid_of,
    send,
    send_all,
    wait_for_burials,
    worker,
)
from tests.node import Site
from tests.processes import alive
from tests.project.hangs import LIMIT, SOFT_LIMIT
from tests.services import PostgreSQL, Valkey
from tests.sites import MakeSite
from tests.waiting import eventually

SLOTS = 6
LIMIT_IN_TIME = 3

CPU = r"the CPU \(running\)"
SLEEP = "sleep"
LOCK = r"a lock \(futex\)"

WAITS = {
    "sleep": SLEEP,
    "regular_expression": CPU,
    "key_derivation": CPU,
    "hold_the_gil": LOCK,
    "swallow_exceptions": SLEEP,
    "swallow_everything": CPU,
    "receive": r"read on 127\.0\.0\.1:{port}",
    "query": r"read on 127\.0\.0\.1:{postgres}",
    "file_lock": "flock on {file}",
    "lock_of_a_thread": LOCK,
    "wait_for_a_process": r"process {started} \(sleep 600\) to end",
    "wait_for_a_session": r"process {started} \(sleep 600\) to end",
    "join_a_thread": LOCK,
    "wait_for_the_start_of_a_process": r"a new process to start \(uninterruptible.*\)",
    "ignore_signals": SLEEP,
    "block_signals": SLEEP,
    "stop": r"stopped by a signal \(SIGSTOP\)",
}
"""What the letter of each task says that it waited for."""

WITHOUT_STACK = {"wait_for_the_start_of_a_process", "block_signals"}
"""Where no signal arrives, no process writes its stack; not even when it is killed."""

HELPERS = {"hold_the_gil": "_hold_the_gil", "swallow_everything": "<genexpr>"}
"""What may hang in a function that the task calls."""

INTERRUPTED = {"swallow_exceptions", "swallow_everything"}
"""What has caught its soft limit and gone on."""

SOFT = {
    "return_at_soft_limit": ("succeeded", True),
    "fail_at_soft_limit": ("failed", True),
    "end_at_soft_limit": ("soft_limit", False),
}
"""How each of these ends at its soft limit, and whether it has swallowed it."""

BURIED_AT_SOFT = ("fail_at_soft_limit", "end_at_soft_limit")
STARTED_OTHERS = ("wait_for_a_process", "wait_for_a_session", "join_a_thread")


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What the hangs left behind."""

    letters: dict[str, Row]
    runs: dict[str, Row]
    soft_runs: dict[str, Row]
    """Of those that ended at their soft limit."""

    soft_letters: dict[str, Row]
    began: dict[str, Row]
    """From the ledger."""

    left_alive: dict[str, list[int]]
    """The processes of each task that still were there when all was over."""

    servers: dict[str, str]
    served_afterwards: set[int]
    """By which processes the next tasks were served."""


@pytest.fixture(scope="module")
def traces(module_site: MakeSite, postgres: PostgreSQL) -> Traces:
    """One worker, all hangs at once, then as many tasks as there are slots."""
    # A soft limit would end most of these tasks: here each has but what it says.
    site = module_site(CELERY_TASK_SOFT_TIME_LIMIT=None)
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        file = held.enter_context((site.directory / "locked").open("w"))
        fcntl.flock(file, fcntl.LOCK_EX)
        fifo = site.directory / "fifo"
        os.mkfifo(fifo)
        port = listener.getsockname()[1]
        # The server drops the query with its client.
        url = f"{postgres.dsn}?options=-cclient_connection_check_interval%3D1000"
        arguments = {
            "receive": [port],
            "query": [url],
            "file_lock": [file.name],
            "wait_for_the_start_of_a_process": [str(fifo)],
        }
        calls = [(name, arguments.get(name, [])) for name in WAITS]
        ids = dict(zip(WAITS, send_all(site, calls), strict=True))
        soft = dict(zip(SOFT, send_all(site, [(n, []) for n in SOFT]), strict=True))
        with worker(site, "-c", str(SLOTS)) as node:
            wait_for_burials(node, len(WAITS) + 2)
            began = {name: site.events("run", id=ids[name])[0] for name in WAITS}
            served = meet(site)
            left_alive = {name: alive(pids_of(began[name])) for name in WAITS}
            buried = [*ids.values(), *(soft[name] for name in BURIED_AT_SOFT)]
            letters = by_task(site, "DeadLetter", buried)
            runs = by_task(site, "TaskRun", [*ids.values(), *soft.values()])
        servers = {"port": port, "postgres": postgres.port, "file": file.name}
    wait_for_end_of_queries(postgres)
    return Traces(
        letters={name: letters[ids[name]] for name in WAITS},
        runs={name: runs[ids[name]] for name in WAITS},
        soft_runs={name: runs[soft[name]] for name in SOFT},
        soft_letters={name: letters[soft[name]] for name in BURIED_AT_SOFT},
        began=began,
        left_alive=left_alive,
        servers={name: re.escape(str(value)) for name, value in servers.items()},
        served_afterwards=served,
    )


def meet(site: Site) -> set[int]:
    """Have all slots serve a task at the same time; the processes that did."""
    path = str(site.directory / "met")
    ids = send_all(site, [("meet", [path, SLOTS])] * SLOTS)
    finish(site, ids)
    return {pid_of(site, task_id) for task_id in ids}


def pids_of(run: Row) -> list[int]:
    """The process that ran a task and the one that it started."""
    return [run[name] for name in ("pid", "started") if name in run]


def wait_for_end_of_queries(postgres: PostgreSQL) -> None:
    """Leave nobody asleep in a database that other tests share."""
    asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        eventually(lambda: not connection.execute(asleep).fetchall(), 10)


@pytest.mark.parametrize("name", WAITS)
def test_it_ends_at_its_hard_limit(traces: Traces, name: str) -> None:
    """Not before, not much later, and there is nothing left of its process."""
    letter = traces.letters[name]

    assert letter["reason"] == "hard_limit"
    assert letter["exception_type"] == "billiard.exceptions.TimeLimitExceeded"
    assert LIMIT - 0.5 < letter["runtime_seconds"] < LIMIT + 10
    assert letter["pid"] == traces.began[name]["pid"]
    assert traces.left_alive[name] == []


@pytest.mark.parametrize("name", WAITS)
def test_the_letter_says_what_it_waited_for(traces: Traces, name: str) -> None:
    """As the kernel saw it, with the address, the file or the process."""
    facts = {**traces.servers, **traces.began[name]}
    expected = WAITS[name].format(**facts)

    assert re.fullmatch(expected, traces.letters[name]["waiting_for"])


@pytest.mark.parametrize("name", [n for n in WAITS if n not in WITHOUT_STACK])
def test_the_letter_names_the_line(traces: Traces, name: str) -> None:
    """The innermost one of the project's own, with its source."""
    letter = traces.letters[name]

    function, source = marked(letter["stack"])

    assert function in (name, HELPERS.get(name))
    assert source.endswith("# here")
    assert f"{function} (project/hangs.py)" in letter["fingerprint"]
    assert f"in {name}" in letter["stack"]


@pytest.mark.parametrize("name", WITHOUT_STACK)
def test_where_no_signal_arrives_there_is_no_stack(traces: Traces, name: str) -> None:
    """It is killed all the same, and the kernel still tells what it waited for."""
    letter = traces.letters[name]

    assert letter["stack"] == ""
    assert name in letter["fingerprint"]


@pytest.mark.parametrize("name", WAITS)
def test_the_run_carries_what_the_letter_carries(traces: Traces, name: str) -> None:
    """Stacks, wait, and what the process had used."""
    letter, run = traces.letters[name], traces.runs[name]
    same = [
        *("task_name", "queue", "reason", "cause", "exception_type"),
        *("exception_message", "traceback", "stack", "soft_stack", "waiting_for"),
        *("fingerprint", "node", "pid", "rss_bytes", "cpu_seconds"),
        "child_age_seconds",
    ]

    assert {key: run[key] for key in same} == {key: letter[key] for key in same}
    assert run["ending"] == "hard_limit"
    assert run["verdict"] == "bury"
    assert run["rss_bytes"] > 10 * 2**20
    assert run["cpu_seconds"] >= 0
    assert run["child_age_seconds"] > LIMIT - 0.5


@pytest.mark.parametrize("name", ["swallow_exceptions", "ignore_signals"])
def test_the_stack_at_the_soft_limit_is_kept(traces: Traces, name: str) -> None:
    """Beside the one at the hard limit, whether or not the task heard of it."""
    function, source = marked(traces.letters[name]["soft_stack"])

    assert function == name
    assert source.endswith("# here")


@pytest.mark.parametrize("name", WAITS)
def test_only_what_caught_its_soft_limit_has_swallowed_it(
    traces: Traces, name: str
) -> None:
    """And went on until it was killed."""
    swallowed = traces.runs[name]["swallowed_soft_limit"]

    assert swallowed is (name in INTERRUPTED)


def test_the_stack_has_all_threads(traces: Traces) -> None:
    """Whoever holds the lock that the task waits for is among them."""
    stack = traces.letters["lock_of_a_thread"]["stack"]
    of_task, others = stack.split("Other threads:")

    assert "lock.acquire()  # here" in of_task
    assert "in hold_the_lock" in others
    assert "time.sleep(LONG)" in others


@pytest.mark.parametrize("name", STARTED_OTHERS)
def test_what_a_killed_task_has_started_is_gone(traces: Traces, name: str) -> None:
    """Also when it is in a process group and a session of its own."""
    started = traces.began[name]["started"]

    assert started not in traces.left_alive[name]


def test_all_slots_serve_again(traces: Traces) -> None:
    """As many tasks as before run at once, and none in a process that hung."""
    hung = {run["pid"] for run in traces.began.values()}

    assert len(traces.served_afterwards) == SLOTS
    assert not traces.served_afterwards & hung


@pytest.mark.parametrize("name", SOFT)
def test_a_soft_limit_is_recorded_by_what_became_of_it(
    traces: Traces, name: str
) -> None:
    """Caught and returned, caught and failed: swallowed. Not caught: not."""
    run = traces.soft_runs[name]

    function, source = marked(run["soft_stack"])

    assert (run["ending"], run["swallowed_soft_limit"]) == SOFT[name]
    assert function == name
    assert source.endswith("# here")
    assert SOFT_LIMIT - 0.5 < run["runtime_seconds"] < SOFT_LIMIT + 10


def test_the_letter_of_a_soft_limit_has_both(traces: Traces) -> None:
    """The stack at the limit, and the traceback of the exception."""
    letter = traces.soft_letters["end_at_soft_limit"]

    assert letter["reason"] == "soft_limit"
    assert letter["soft_stack"] == traces.soft_runs["end_at_soft_limit"]["soft_stack"]
    assert "time.sleep(LONG)  # here" in letter["traceback"]


def test_a_child_that_never_begins_holds_no_task_for_ever(redis_site: MakeSite) -> None:
    """It was stopped before it had a task: that one ends, in whichever way."""
    site = redis_site(CELERY_TASK_SOFT_TIME_LIMIT=None)
    with worker(site, "-c", "1"):
        finish(site, [first := send(site, "nothing")])
        with redis.Redis.from_url(site.broker) as client:
            # Main has heard of it: its child waits for the next one.
            eventually(lambda: not client.exists("unacked"), 20)
        # The child that has done most is the one that gets the next task.
        os.kill(pid_of(site, first), signal.SIGSTOP)
        task_id = send(site, "nothing", time_limit=LIMIT)

        with site.client() as app:
            eventually(lambda: app.backend.get_state(task_id) != "PENDING", 40)
        finish(site, [send(site, "nothing")])


def test_what_has_ended_is_not_killed_while_main_waits(
    own_redis_site: Site, own_valkey: Valkey
) -> None:
    """A task that was in time is no hard limit because main heard of it too late."""
    site = own_redis_site
    with worker(site, "-c", "2") as node:
        # Main waits for the stopped broker, to acknowledge the first one.
        first, second = send_all(
            site, [("take", [0.6]), ("take", [1.2])], time_limit=LIMIT_IN_TIME
        )
        pids = [pid_of(site, first), pid_of(site, second)]
        broker = own_valkey.pid
        os.kill(broker, signal.SIGSTOP)
        try:
            eventually(lambda: site.events("end", id=second), 20)
            time.sleep(LIMIT_IN_TIME)
        finally:
            os.kill(broker, signal.SIGCONT)
        third = send(site, "take", 0)
        eventually(lambda: site.events("end", id=third), 30)
        log = node.log()

        assert "is buried" not in log
        assert alive(pids) == pids
