"""RabbitMQ: quorum queues, delays on the broker, and letters of what it drops."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import kombu
import pytest

from tests.integration.conftest import MakeSite
from tests.integration.sending import TASKS, send
from tests.node import Site
from tests.waiting import eventually
from unstuck.rabbit.queues import SafeQueue, dead_letter_queue

DELAYS = re.compile(r"celery_delayed_\d+")

KINDS = ["amqp", "quorum"]
"""Stock Celery's classic queue, and the one that we make where there is none."""


@pytest.fixture(params=KINDS)
def rabbit_site(request: pytest.FixtureRequest) -> MakeSite:
    """Makes a site with a queue of each kind."""
    make: MakeSite = request.getfixturevalue(f"{request.param}_site")
    return make


def vhost_of(site: Site) -> str:
    """The virtual host of a site."""
    return unquote(urlsplit(site.broker).path.removeprefix("/"))


def queues(rabbitmq: Any, site: Site, *facts: str) -> dict[str, list[str]]:
    """Facts of all queues but the ladder of delays, as RabbitMQ tells them."""
    listed = rabbitmq.ctl(
        "list_queues", "--silent", "-p", vhost_of(site), "name", *facts
    )
    rows = [line.split("\t") for line in listed.splitlines() if line]
    return {row[0]: row[1:] for row in rows if not DELAYS.fullmatch(row[0])}


@contextmanager
def connected(site: Site) -> Iterator[Any]:
    """A channel of a connection of our own."""
    options = {"confirm_publish": True}
    with kombu.Connection(site.broker, transport_options=options) as connection:
        yield connection.default_channel


# Queues.


def test_queues_that_are_new_are_quorum_queues(
    quorum_site: MakeSite, rabbitmq: Any
) -> None:
    """Those of tasks and letters; what is of a process alone stays classic."""
    site = quorum_site()
    with site.node() as node:
        kinds = {
            name: facts[0] for name, facts in queues(rabbitmq, site, "type").items()
        }
        log = node.log()

    lasting = {name for name, kind in kinds.items() if kind == "quorum"}
    assert lasting == {"celery", "media", "unstuck.dead"}
    assert any(name.endswith(".celery.pidbox") for name in set(kinds) - lasting)
    assert "is there already" not in log


def test_a_queue_that_is_there_is_used_as_it_is(
    amqp_site: MakeSite, rabbitmq: Any
) -> None:
    """Classic, and with other arguments than the project says now: one line says so."""
    site = amqp_site()
    with connected(site) as channel:
        channel.queue_declare(
            "media",
            durable=True,
            auto_delete=False,
            arguments={"x-max-length": 7, "x-overflow": "reject-publish"},
        )
        channel.queue_declare("unstuck.dead", durable=True, auto_delete=False)

    with site.node() as node, site.client() as app:
        with app.connection_for_write() as connection:
            # Stock Celery declares it as ever, time and again.
            app.amqp.queues["celery"](connection.default_channel).declare()
        buried = send(site, "fail")
        letter = site.letter(buried)
        kinds = queues(rabbitmq, site, "type")
        log = node.log()

    assert letter["reason"] == "failed"
    assert {name for name, (kind,) in kinds.items() if kind == "quorum"} == set()
    told = [line for line in log.splitlines() if "is there already" in line]
    assert len(told) == 3
    media = next(line for line in told if "queue=media" in line)
    assert "kind=classic" in media
    assert "x-max-length: 7, not None" in media
    assert "docs/rabbitmq.md" in media


def test_a_queue_is_no_reason_not_to_work(amqp_site: MakeSite) -> None:
    """The project wants it to be a quorum queue, by Celery's own setting; it is not."""
    site = amqp_site(CELERY_TASK_DEFAULT_QUEUE_TYPE="quorum", CELERY_TASK_QUEUES=None)
    with site.node() as node:
        late = send(site, "add", 1, 2, countdown=2)
        now = send(site, "add", 1, 2)
        eventually(lambda: site.runs(now) == 1, 20)
        eventually(lambda: site.runs(late) == 1, 20)
        log = node.log()

    assert "x-queue-type: None, not 'quorum'" in log


# Delays.


def test_an_eta_waits_on_the_broker(rabbit_site: MakeSite, rabbitmq: Any) -> None:
    """No worker has it meanwhile, and it is on time; it keeps no other one waiting."""
    site = rabbit_site()
    with site.node("-c", "1") as node:
        for _ in range(10):
            send(site, "add", 1, 2, countdown=3600)
        sent = time.time()
        task_id = send(site, "add", 1, 2, countdown=25)

        def is_away() -> bool:
            facts = queues(rabbitmq, site, "messages")
            return facts["celery"] == ["0"]

        eventually(is_away, 6)
        now = send(site, "add", 1, 2)
        eventually(lambda: site.runs(now) == 1, 5)
        assert task_id not in node.log()
        assert site.runs(task_id) == 0
        eventually(lambda: site.runs(task_id) == 1, 40)
        eventually(is_away, 10)

    run = site.events("run", id=task_id)[0]
    assert 25 <= run["at"] - sent < 45


def test_retries_with_a_delay_are_all_made(quorum_site: MakeSite) -> None:
    """Each by way of the same ladder: RabbitMQ must not take it for a circle."""
    delays = {"CELERY_TASK_DEFAULT_RETRY_DELAY": 2, "CELERY_TASK_MAX_RETRIES": 2}
    site = quorum_site(**delays)
    with site.node():
        task_id = send(site, "retry_by_settings")
        letter = site.letter(task_id, 60)

    assert letter["reason"] == "failed"
    assert site.runs(task_id) == 3


def test_an_eta_outlives_the_broker(own_amqp_site: Site, own_rabbitmq: Any) -> None:
    """A restart in the middle: it runs once, and on time or right after."""
    site = own_amqp_site
    with site.node():
        sent = time.time()
        task_id = send(site, "add", 1, 2, countdown=8)
        eventually(lambda: site.queue_lengths("celery") == {"celery": 0}, 5)
        own_rabbitmq.restart()
        eventually(lambda: site.runs(task_id) == 1, 60)

    assert len(site.events("run", id=task_id)) == 1
    assert site.events("run", id=task_id)[0]["at"] - sent >= 8


def test_an_unknown_task_waits_on_the_broker(quorum_site: MakeSite) -> None:
    """It does not take the place of one that could run."""
    site = quorum_site(UNSTUCK={"UNKNOWN_TASK_PATIENCE_SECONDS": 2})
    with site.node("-c", "1"):
        unknown = [send(site, "nobody_has_this_task") for _ in range(5)]
        now = send(site, "add", 1, 2)
        eventually(lambda: site.runs(now) == 1, 3)
        letters = eventually(lambda: len(site.letters()) == 5 and site.letters(), 40)

    assert {letter["task_id"] for letter in letters} == set(unknown)
    assert {letter["reason"] for letter in letters} == {"unknown_task"}


# Losses.


def test_poison_on_a_quorum_queue(quorum_site: MakeSite) -> None:
    """Three runs and one letter."""
    site = quorum_site()
    with site.node("-c", "1"):
        task_id = send(site, "kill")
        letter = site.letter(task_id, 60)

    assert (letter["reason"], letter["deliveries"]) == ("poison", 3)
    assert site.runs(task_id) == 3


def test_poison_for_a_whole_node_on_a_quorum_queue(quorum_site: MakeSite) -> None:
    """The broker counts the losses; together with ours they are three."""
    site = quorum_site()
    task_id = send(site, "kill")
    for run in range(1, 4):
        with site.node(pool="solo", ready=False) as node:
            eventually(lambda r=run: site.runs(task_id) == r, 40)
            node.wait()
    with site.node(pool="solo"):
        letter = site.letter(task_id, 60)

    assert letter["reason"] == "poison"
    assert site.runs(task_id) == 3


# What the broker drops.


def limited(site: Site, queue: str, **arguments: Any) -> kombu.Queue:
    """A queue of the project with limits of its own, declared as our nodes do."""
    made = SafeQueue.of(
        kombu.Queue(
            queue, kombu.Exchange(""), routing_key=queue, queue_arguments=arguments
        )
    )
    with connected(site) as channel:
        made(channel).declare()
    return made


def publish(site: Site, queue: str, number: int, **options: Any) -> None:
    """A message of a task."""
    with connected(site) as channel:
        kombu.Producer(channel).publish(
            [[number, 1], {}, {}],
            routing_key=queue,
            headers={
                "task": TASKS + "add",
                "id": f"id-{number}",
                "retries": 1,
                **options.pop("headers", {}),
            },
            serializer="json",
            **options,
        )


def letters(site: Site, count: int) -> dict[str, Mapping[str, Any]]:
    """What the broker holds, archived: by the ids of the tasks."""
    waiting = {"unstuck.dead": count}
    eventually(lambda: site.queue_lengths("unstuck.dead") == waiting, 20)
    site.unstuck("dead", "archive")
    return {row["task_id"]: row for row in site.letters()}


def test_what_the_broker_drops_becomes_letters(quorum_site: MakeSite) -> None:
    """A full queue, a TTL, too many losses; each can be replayed.

    A call that itself said ``expires`` wanted no letter.
    """
    site = quorum_site()
    limited(site, "full", **{"x-max-length": 2})
    for number in range(5):
        publish(site, "full", number)
    limited(site, "brief", **{"x-message-ttl": 200})
    publish(site, "brief", 10)
    limited(site, "patient")
    past = {"expires": "2020-01-01T00:00:00+00:00"}
    publish(site, "patient", 11, headers=past, expiration=0.1)
    lose(site, limited(site, "deadly", **{"x-delivery-limit": 2}), 12)

    found = letters(site, 6)

    assert set(found) == {"id-0", "id-1", "id-2", "id-10", "id-12"}
    assert {name: row["queue"] for name, row in found.items()} == {
        **dict.fromkeys(["id-0", "id-1", "id-2"], "full"),
        "id-10": "brief",
        "id-12": "deadly",
    }
    full, brief, deadly = found["id-0"], found["id-10"], found["id-12"]
    assert full["cause"].startswith("dropped by the broker: the queue was full")
    assert "its time in the queue was over" in brief["cause"]
    assert "lost too often" in deadly["cause"]
    assert (full["reason"], brief["reason"]) == ("rejected", "rejected")
    assert deadly["reason"] == "poison"
    assert full["task_name"] == TASKS + "add"
    assert (full["attempts"], full["args"]) == (2, [0, 1])
    assert "x-death" not in full["headers"]
    assert site.queue_lengths("unstuck.dead", "patient", "brief", "deadly") == {
        "unstuck.dead": 0,
        "patient": 0,
        "brief": 0,
        "deadly": 0,
    }


def lose(site: Site, queue: kombu.Queue, number: int) -> None:
    """Send a message, and take it three times without saying anything."""
    publish(site, queue.name, number)
    with kombu.Connection(site.broker) as connection:
        for _ in range(3):
            channel = connection.channel()
            taken = eventually(lambda c=channel: queue(c).get(), 10)
            assert taken.headers["id"] == f"id-{number}"
            channel.close()


def test_a_policy_gives_letters_to_a_queue_that_is_there(
    amqp_site: MakeSite, rabbitmq: Any
) -> None:
    """What is in the documentation for a classic queue, without touching it."""
    site = amqp_site()
    rabbitmq.ctl(
        *("set_policy", "-p", vhost_of(site), "unstuck-dead", "^(celery|thumbnails)$"),
        '{"dead-letter-exchange": "", "dead-letter-routing-key": "unstuck.dead"}',
        *("--apply-to", "queues"),
    )
    with connected(site) as channel:
        dead_letter_queue()(channel).declare()
    publish(site, "celery", 1, expiration=0.1)

    found = letters(site, 1)

    assert found["id-1"]["queue"] == "celery"


def test_one_death_is_one_letter(quorum_site: MakeSite) -> None:
    """Buried by a node which could not acknowledge any more, then dropped as well."""
    site = quorum_site()
    limited(site, "media", **{"x-message-ttl": 200})
    publish(site, "media", 1)
    letters(site, 1)
    site.python(
        "from unstuck.models import DeadLetter\n"
        "import uuid\n"
        "answer = DeadLetter.objects.update(reason='failed', letter_id=uuid.uuid4())"
    )
    publish(site, "media", 1)
    publish(site, "media", 2)

    found = letters(site, 2)

    assert found["id-1"]["reason"] == "failed"
    assert found["id-2"]["reason"] == "rejected"


# Connections.


def test_a_connection_stays_alive_while_a_node_shuts_down(
    quorum_site: MakeSite, rabbitmq: Any
) -> None:
    """Heartbeats go on: what ends meanwhile is acknowledged, and does not run again."""
    site = quorum_site(
        CELERY_BROKER_HEARTBEAT=2, CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT=30
    )
    with site.node("-c", "1") as node:
        task_id = send(site, "sleep", 8)
        eventually(lambda: site.runs(task_id) == 1, 20)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        eventually(lambda: queues(rabbitmq, site, "messages")["celery"] == ["0"], 5)

    assert len(site.events("end", id=task_id)) == 1
    assert site.runs(task_id) == 1


FORKS = """
    import os, select, sys
    import billiard.util
    from unstuck import Celery
    from unstuck.rabbit import forks

    app = Celery("shop", broker=sys.argv[1])
    app.send_task("first")
    with app.producer_or_acquire() as producer:
        socket = producer.connection.connection.transport.sock
    if sys.argv[2] == "kept":
        forks.keep_connections_in_parent(app)
    pid = os.fork()
    if pid == 0:
        # What billiard does in each child of Celery's prefork pool.
        billiard.util._run_after_forkers()
        os._exit(0)
    os.waitpid(pid, 0)
    readable, _, _ = select.select([socket], [], [], 0.5)
    print("shut down" if readable else "open")
"""


@pytest.mark.parametrize(("way", "found"), [("kept", "open"), ("", "shut down")])
def test_a_fork_does_not_shut_down_what_main_publishes_by(
    rabbitmq: Any, way: str, found: str
) -> None:
    """As it does without us: then main publishes a second time what was under way."""
    url = rabbitmq.url(rabbitmq.vhost())
    program = [sys.executable, "-c", textwrap.dedent(FORKS), url, way]
    said = subprocess.run(program, check=True, capture_output=True, text=True).stdout

    assert said.strip() == found
