"""Brokers and databases that go away: nothing is lost, nothing runs twice needlessly."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeSite
from tests.integration.sending import send
from tests.node import Node, Site
from tests.waiting import eventually


def test_letters_wait_on_the_broker_while_the_database_is_down(
    make_site: MakeSite, postgres: Any
) -> None:
    """PostgreSQL stopped: tasks go on, letters wait; started again: each is archived."""
    site = make_site()
    site.database = postgres.database().url
    site.manage("migrate", "-v", "0")
    with site.node():
        first = send(site, "fail")
        site.letter(first)

        postgres.stop()
        during = [send(site, "fail") for _ in range(5)]
        well = send(site, "add", 1, 2)
        eventually(lambda: all(site.runs(task_id) for task_id in [*during, well]), 20)
        postgres.start()

        eventually(lambda: len(site.letters()) == 6, 60)

    assert {letter["task_id"] for letter in site.letters()} == {first, *during}


def test_a_recorder_that_is_killed_is_replaced_and_archives_once(
    redis_site: MakeSite,
) -> None:
    """SIGKILL of the recorder, again and again, under a stream of letters."""
    site = redis_site()
    with site.node() as node:
        ids = []
        for _ in range(3):
            ids += [send(site, "fail") for _ in range(10)]
            for pid in recorders(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        eventually(lambda: len(site.letters()) >= len(ids), 100)

    assert sorted(letter["task_id"] for letter in site.letters()) == sorted(ids)


def recorders(node: Node) -> list[int]:
    """The recorder process of a node: the child of the supervisor beside main."""
    found = []
    for child in children(node.main_pid):
        if not Path(f"/proc/{child}/cmdline").read_bytes():
            continue
        found += children(child)
    return found


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    with contextlib.suppress(OSError):
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in listed]
    return []


def test_a_lost_connection_does_not_run_a_task_twice(
    redis_site: MakeSite, valkey: Any
) -> None:
    """CLIENT KILL while a task runs: its redelivery is adopted by the run."""
    site = redis_site()
    with site.node("-c", "2") as node:
        task_id = send(site, "sleep", 6)
        eventually(lambda: site.runs(task_id) == 1, 20)
        with valkey.client() as client:
            client.client_kill_filter(_type="normal")
            client.client_kill_filter(_type="pubsub")

        eventually(lambda: site.events("end", id=task_id), 20)
        eventually(lambda: "adopting" in node.log(), 20)
        with valkey.client() as client:
            eventually(lambda: not client.exists("unacked", "celery"), 20)

    assert site.runs(task_id) == 1
    assert site.letters() == []


def test_rabbitmq_that_restarts_does_not_run_a_task_twice(
    own_amqp_site: Site, own_rabbitmq: Any
) -> None:
    """The same with a RabbitMQ that restarts while a task runs."""
    site = own_amqp_site
    with site.node("-c", "2"):
        late = send(site, "sleep", 25)
        eventually(lambda: site.runs(late) == 1, 20)
        own_rabbitmq.restart()
        eventually(lambda: site.events("end", id=late), 60)

        after = eventually(lambda: try_to_send(site, "add", 1, 2), 20)
        eventually(lambda: site.runs(after) == 1, 40)

    assert site.runs(late) == 1
    assert site.letters() == []


def try_to_send(site: Site, name: str, *args: Any) -> str | None:
    """Send a task, or nothing while the broker is not there."""
    with contextlib.suppress(OSError):
        return send(site, name, *args)
    return None


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_retry_that_the_broker_does_not_take_is_not_lost(
    redis_site: MakeSite, valkey: Any, pool: str
) -> None:
    """Redis that is full: stock Celery throws the task away, ours comes back."""
    site = redis_site()
    with site.node(pool=pool) as node:
        task_id = send(site, "retry_when_told", str(site.directory / "go"))
        eventually(lambda: site.runs(task_id) == 1, 20)
        with full(valkey):
            (site.directory / "go").touch()
            eventually(lambda: "could not be settled" in node.log(), 30)

        letter = site.letter(task_id, 60)

    assert letter["reason"] == "failed"
    assert [event["attempt"] for event in site.events("run", id=task_id)] == [0, 0, 1]


@contextlib.contextmanager
def full(valkey: Any) -> Any:
    """Valkey that refuses to write."""
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


def test_a_letter_that_the_broker_does_not_take_is_not_lost(
    redis_site: MakeSite, valkey: Any
) -> None:
    """The message stays unacknowledged until its letter is on the broker."""
    site = redis_site()
    with site.node() as node:
        task_id = send(site, "fail_when_told", str(site.directory / "go"))
        eventually(lambda: site.runs(task_id) == 1, 20)
        with full(valkey):
            (site.directory / "go").touch()
            eventually(lambda: "could not be settled" in node.log(), 30)
            with valkey.client() as client:
                assert client.hlen("unacked") == 1

        letter = site.letter(task_id, 60)

    assert letter["reason"] == "failed"
    assert site.runs(task_id) == 1


def test_an_unreachable_broker_costs_the_caller_ten_seconds_at_most(
    redis_site: MakeSite, valkey: Any
) -> None:
    """`delay()` while Valkey is frozen raises kombu's OperationalError, bounded."""
    site = redis_site()
    pid = valkey.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = site.python(
            "import time; from kombu.exceptions import OperationalError\n"
            "from tests.project.tasks import add\n"
            "start = time.monotonic()\n"
            "try: add.delay(1, 2); answer = 'sent'\n"
            "except OperationalError: answer = time.monotonic() - start\n"
        )
    finally:
        os.kill(pid, signal.SIGCONT)

    assert isinstance(answer, float), answer
    assert answer < 12


def test_garbage_in_the_queue_of_letters_is_archived_beside_them(
    redis_site: MakeSite, valkey: Any
) -> None:
    """Somebody pushed a bare string: it is kept once, and the letters go on."""
    site = redis_site()
    with valkey.client() as client:
        client.lpush("unstuck.dead", b"\x00 no message of anybody's")
    with site.node():
        task_id = send(site, "fail")
        site.letter(task_id)

        (garbage,) = eventually(lambda: site.letters(task_id=""), 10)
        eventually(lambda: not site.queue_lengths("unstuck.dead")["unstuck.dead"], 10)

    assert garbage["reason"] == "undecodable"
