"""Brokers and databases that go away: nothing is lost, nothing runs twice needlessly."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import kombu
import pytest

from tests.integration.conftest import MakeSite
from tests.integration.sending import TASKS, send
from tests.node import Site
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
            for pid in node.companions_pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        eventually(lambda: len(site.letters()) >= len(ids), 100)

    assert sorted(letter["task_id"] for letter in site.letters()) == sorted(ids)


def test_a_lost_connection_does_not_run_a_task_twice(
    own_redis_site: Site, own_valkey: Any
) -> None:
    """CLIENT KILL while a task runs: its redelivery is adopted by the run."""
    site = own_redis_site
    with site.node("-c", "2") as node:
        task_id = send(site, "sleep", 6)
        eventually(lambda: site.runs(task_id) == 1, 20)
        with own_valkey.client() as client:
            client.client_kill_filter(_type="normal")
            client.client_kill_filter(_type="pubsub")

        eventually(lambda: site.events("end", id=task_id), 20)
        eventually(lambda: "adopting" in node.log(), 20)
        with own_valkey.client() as client:
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
        with valkey.setting(maxmemory=1):
            (site.directory / "go").touch()
            eventually(lambda: "could not be settled" in node.log(), 30)

        letter = site.letter(task_id, 60)

    assert letter["reason"] == "failed"
    assert [event["attempt"] for event in site.events("run", id=task_id)] == [0, 0, 1]


def test_a_letter_that_the_broker_does_not_take_is_not_lost(
    redis_site: MakeSite, valkey: Any
) -> None:
    """The message stays unacknowledged until its letter is on the broker."""
    site = redis_site()
    with site.node() as node:
        task_id = send(site, "fail_when_told", str(site.directory / "go"))
        eventually(lambda: site.runs(task_id) == 1, 20)
        with valkey.setting(maxmemory=1):
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


def test_a_slow_task_does_not_outlive_the_visibility_timeout(
    redis_site: MakeSite,
) -> None:
    """Redis, two nodes: a second run happens after a loss, never because of slowness."""
    site = redis_site(
        CELERY_BROKER_TRANSPORT_OPTIONS={
            "visibility_timeout": 2,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
    )
    with site.node("-n", "one@%h"), site.node("-n", "two@%h"):
        slow = send(site, "sleep", 8)
        late = send(site, "add", 1, 2, countdown=6)
        eventually(lambda: site.events("end", id=slow), 30)
        eventually(lambda: site.runs(late) == 1, 20)
        eventually(lambda: not site.queue_lengths("celery")["celery"], 10)

    assert (site.runs(slow), site.runs(late)) == (1, 1)


def test_a_worker_outlives_a_redis_that_restarts(
    own_redis_site: Site, own_valkey: Any
) -> None:
    """Celery 5.7.0 ends when that happens while it holds a message."""
    site = own_redis_site
    with site.node("-c", "1"):
        task_id = send(site, "sleep", 6)
        eventually(lambda: site.runs(task_id) == 1, 20)
        own_valkey.restart()
        eventually(lambda: site.events("end", id=task_id), 30)

        after = eventually(lambda: try_to_send(site, "add", 1, 2), 20)
        eventually(lambda: site.runs(after) == 1, 40)


def test_a_result_store_that_goes_away_does_not_deafen_a_pool_of_threads(
    own_redis_site: Site, own_valkey: Any, redis_site: MakeSite
) -> None:
    """The tracer itself fails then, of which Celery tells nobody."""
    site = redis_site()
    site.results = own_valkey.url(1)
    with site.node("-c", "1", pool="threads"):
        task_id = send(site, "sleep", 2)
        eventually(lambda: site.runs(task_id) == 1, 20)
        own_valkey.stop()

        letter = site.letter(task_id, 90)
        own_valkey.start()
        after = send(site, "add", 1, 2)
        eventually(lambda: site.runs(after) == 1, 40)

    assert letter["reason"] == "failed"


def test_a_message_by_a_topic_comes_back_to_its_queue(redis_site: MakeSite) -> None:
    """Redis names no queue with a message; the pattern of its binding does."""
    site = redis_site()
    marker = str(site.directory / "marker")
    with site.node("-c", "1", "-Q", "media"):
        task_id = send_by_topic(site, "kill_once", marker)
        eventually(lambda: site.runs(task_id) == 2, 30)


def send_by_topic(site: Site, name: str, *args: Any) -> str:
    """Send by a topic exchange whose queue is bound by a pattern."""
    with site.client() as app:
        exchange = kombu.Exchange("media", type="topic")
        queue = kombu.Queue("media", exchange, routing_key="media.#")
        result = app.send_task(
            TASKS + name,
            args,
            exchange=exchange,
            routing_key="media.video",
            declare=[queue],
        )
        return str(result.id)


@pytest.mark.parametrize("broker", ["redis", "streams"])
def test_what_a_child_has_not_taken_yet_is_not_forgotten_with_the_connection(
    request: pytest.FixtureRequest, own_valkey: Any, broker: str
) -> None:
    """It counts as running, as its child was free; it runs after the outage, once."""
    site: Site = request.getfixturevalue(f"own_{broker}_site")
    site.settings = {
        "CELERY_BROKER_TRANSPORT_OPTIONS": {
            "visibility_timeout": 2,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
    }
    with site.node("-c", "1") as node:
        first = send(site, "add", 1, 2)
        eventually(lambda: site.runs(first) == 1, 20)
        eventually(lambda: f"[{first}] succeeded" in node.log(), 20)
        children = node.children_pids
        for child in children:
            os.kill(child, signal.SIGSTOP)
        try:
            task_id = send(site, "add", 3, 4)
            eventually(lambda: f"[{task_id}] received" in node.log(), 20)
            own_valkey.stop()
            own_valkey.start()
            eventually(lambda: node.log().count("Connected to") == 2, 20)
        finally:
            for child in children:
                os.kill(child, signal.SIGCONT)

        eventually(lambda: site.runs(task_id) == 1, 30)
    assert site.runs(task_id) == 1


def test_what_waits_for_a_free_thread_runs_once_after_a_lost_connection(
    own_redis_site: Site, own_valkey: Any
) -> None:
    """The broker hands it out again, and the pool must not keep it as well."""
    site = own_redis_site
    site.settings = {"CELERY_WORKER_PREFETCH_MULTIPLIER": 4}
    with site.node("-c", "1", pool="threads") as node:
        running = send(site, "sleep", 6)
        eventually(lambda: site.runs(running) == 1, 20)
        waits = send(site, "add", 1, 2)
        received = f"[{waits}] received"
        eventually(lambda: received in node.log(), 20)
        with own_valkey.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        eventually(lambda: node.log().count(received) == 2, 20)
        behind = send(site, "add", 3, 4)
        eventually(lambda: site.runs(behind), 30)

    assert site.runs(waits) == 1
