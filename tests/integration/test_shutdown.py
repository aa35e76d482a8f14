"""Stopping a worker gives back what it has not done, without strikes or losses."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
import redis

from tests.integration.conftest import MakeSite
from tests.integration.sending import send
from tests.node import Site
from tests.waiting import eventually


def test_sigterm_gives_back_what_has_not_started(make_site: MakeSite) -> None:
    """ETA tasks in a worker's memory return clean, at-most-once tasks among them.

    On Redis Streams and RabbitMQ they have not been there.
    """
    site = make_site()
    with site.node("-c", "1") as node:
        ids = [
            send(site, "add", 1, 2, countdown=8),
            send(site, "add_at_most_once", 1, 2, countdown=8),
        ]
        if site.broker.startswith("redis"):
            eventually(lambda: all(task_id in node.log() for task_id in ids), 20)
        running = send(site, "sleep", 2)
        eventually(lambda: site.runs(running) == 1, 20)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        assert site.events("end", id=running)
        if not site.broker.startswith("amqp"):
            assert site.queue_lengths("celery") == {"celery": 2}

    with site.node("-c", "1") as node:
        eventually(lambda: all(site.runs(task_id) == 1 for task_id in ids), 40)
        eventually(lambda: not site.queue_lengths("celery")["celery"], 10)
        assert "runs again" not in node.log()

    assert site.runs(running) == 1
    assert site.letters() == []


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_sigterm_gives_back_what_waits_for_a_free_child(
    make_site: MakeSite, pool: str
) -> None:
    """What was prefetched has not started, and is not taken for a lost node's."""
    site = make_site(CELERY_WORKER_PREFETCH_MULTIPLIER=4, UNSTUCK={"MAX_STRIKES": 1})
    with site.node("-c", "1", pool=pool) as node:
        running = send(site, "sleep", 2)
        eventually(lambda: site.runs(running) == 1, 20)
        ids = [send(site, "add", 1, 2) for _ in range(3)]
        eventually(lambda: all(task_id in node.log() for task_id in ids), 20)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        assert site.queue_lengths("celery") == {"celery": 3}

    with site.node("-c", "1", pool=pool):
        eventually(lambda: all(site.runs(task_id) == 1 for task_id in ids), 20)

    assert site.runs(running) == 1
    assert site.letters() == []


def test_an_idle_worker_does_not_take_what_it_gives_back(redis_site: MakeSite) -> None:
    """kombu has asked for a message then, and would get one of these."""
    site = redis_site()
    with site.node("-c", "2") as node:
        ids = [send(site, "add", 1, 2, countdown=3600) for _ in range(2)]
        eventually(lambda: all(task_id in node.log() for task_id in ids), 20)
        node.send(signal.SIGTERM)
        assert node.wait() == 0

    with redis.Redis.from_url(site.broker) as client:
        messages = [json.loads(each) for each in client.lrange("celery", 0, -1)]
    assert {message["headers"]["id"] for message in messages} == set(ids)
    assert not any("redelivered" in message["headers"] for message in messages)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_sigterm_after_lost_connections_gives_each_back_once(
    own_redis_site: Site, own_valkey: Any, pool: str
) -> None:
    """The broker took back what waited, also for a free process, when each was lost."""
    site = own_redis_site
    site.settings = {"CELERY_WORKER_PREFETCH_MULTIPLIER": 4}
    with site.node("-c", "1", pool=pool) as node:
        running = send(site, "sleep", 15)
        eventually(lambda: site.runs(running) == 1, 20)
        ids = [send(site, "add", 1, 2, countdown=3600), send(site, "add", 1, 2)]
        for lost in range(3):
            if lost:
                with own_valkey.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
            for task_id in ids:
                received = f"[{task_id}] received"
                eventually(lambda: node.log().count(received) == lost + 1, 20)  # noqa: B023
        node.send(signal.SIGTERM)
        assert node.wait() == 0

    assert sorted(waiting_in(site)) == sorted(ids)
    assert [event["id"] for event in site.events("run")] == [running]


def waiting_in(site: Site) -> list[str]:
    """The ids of the tasks that wait on kombu's own Redis."""
    with redis.Redis.from_url(site.broker) as client:
        assert not client.exists("unacked")
        messages = [json.loads(each) for each in client.lrange("celery", 0, -1)]
    return [str(message["headers"]["id"]) for message in messages]


def test_a_cold_shutdown_gives_back_what_runs_and_counts_no_strike(
    make_site: MakeSite,
) -> None:
    """SIGQUIT at the end of the soft shutdown time: back in the queue, not buried."""
    site = make_site(
        CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT=0.5, UNSTUCK={"MAX_STRIKES": 1}
    )
    with site.node("-c", "1") as node:
        task_id = send(site, "sleep_once", 60, str(site.directory / "marker"))
        eventually(lambda: (site.directory / "marker").exists(), 20)
        node.send(signal.SIGQUIT)
        node.wait()
        assert site.queue_lengths("celery") == {"celery": 1}

    with site.node("-c", "1"):
        eventually(lambda: site.events("end", id=task_id), 40)

    assert site.runs(task_id) == 2
    assert site.letters() == []
