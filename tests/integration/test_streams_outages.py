"""A server that is full, read-only, empty, new, silent or gone: nothing is lost by it.

Each test sends before, during and after; what `delay()` has taken runs, once, and the
worker comes back by itself within ten seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from tests.integration.sending import send
from tests.node import Node, Site
from tests.services import Valkey
from tests.sites import STREAMS
from tests.waiting import eventually
from tests.wire import Wire
from unstuck.dev.ports import HOST

RECOVERS_SECONDS = 10.0
SENDS_SECONDS = 10.0
"""What one `delay()` may take in all, whatever the server does."""


@dataclass
class Work:
    """What was sent, and what has become of it."""

    site: Site
    sent: list[str] = field(default_factory=list)

    def send(self, name: str = "add", *args: Any, **options: Any) -> str:
        """Send a task."""
        self.sent.append(send(self.site, name, *(args or (1, 2)), **options))
        return self.sent[-1]

    def runs(self) -> bool:
        """Whether a task that is sent now runs."""
        task_id = self.send()
        eventually(lambda: self.site.runs(task_id), RECOVERS_SECONDS)
        return True

    def have_run_once(self) -> bool:
        """Whether each has run, and none twice."""
        return [self.site.runs(task_id) for task_id in self.sent] == [1] * len(
            self.sent
        )

    def nothing_is_left(self) -> bool:
        """Whether nobody waits and nobody has anything in hand."""
        return left_in(self.site) == []


def left_in(site: Site) -> list[Any]:
    """What the streams, the delayed sets and the readers of a site still have."""
    with site.client() as app, app.connection_for_read() as connection:
        client = connection.default_channel.commands
        streams = client.execute_command("KEYS", "unstuck:queue:*")
        delayed = client.execute_command("KEYS", "unstuck:delayed:*")
        return [
            *((s, n) for s in streams if (n := client.execute_command("XLEN", s))),
            *((s, n) for s in delayed if (n := client.execute_command("ZCARD", s))),
        ]


@contextlib.contextmanager
def working(site: Site) -> Iterator[tuple[Work, Node]]:
    """A node that has done something, and in the end has done all that was sent."""
    work = Work(site)
    with site.node("-c", "2") as node:
        work.runs()
        yield work, node
        eventually(work.have_run_once, 20)
        eventually(work.nothing_is_left, 10)


def refused(site: Site, seconds: float = SENDS_SECONDS) -> str:
    """What `delay()` has raised, which is kombu's, and in time."""
    answer = site.python(
        "import time; from kombu.exceptions import OperationalError\n"
        "from tests.project.tasks import add\n"
        "start = time.monotonic()\n"
        "try: add.delay(1, 2); answer = None\n"
        "except OperationalError as error:\n"
        "    answer = str(error), time.monotonic() - start\n"
    )
    assert answer is not None, "delay() has not raised"
    text, took = answer
    assert took < seconds, took
    return str(text)


def test_a_full_server(own_streams_site: Site, own_valkey: Valkey) -> None:
    """OOM (`noeviction`): what runs ends, what is sent is refused, what waits runs."""
    with working(own_streams_site) as (work, node):
        running = work.send("sleep", 3)
        work.send("add", countdown=2)
        eventually(lambda: own_streams_site.runs(running), 10)
        with own_valkey.setting(maxmemory=1):
            assert "maxmemory" in refused(own_streams_site)
            eventually(lambda: own_streams_site.events("end", id=running), 15)
            time.sleep(6)  # longer than the lease

        eventually(work.have_run_once, RECOVERS_SECONDS)
        work.runs()
        assert "is dead" not in node.log()
        assert node.log().count(" ready.") == 1


def test_a_retry_into_a_full_server(own_streams_site: Site, own_valkey: Valkey) -> None:
    """The attempt runs again once there is room, and its node is not taken for dead."""
    site = own_streams_site
    with site.node("-c", "1") as node:
        task_id = send(site, "retry_when_told", str(site.directory / "go"))
        eventually(lambda: site.runs(task_id) == 1, 20)
        with own_valkey.setting(maxmemory=1):
            (site.directory / "go").touch()
            time.sleep(7)  # longer than the lease

        letter = site.letter(task_id, 30)
        eventually(lambda: left_in(site) == [], 10)
        assert "is dead" not in node.log()

    assert letter["reason"] == "failed"
    assert [event["attempt"] for event in site.events("run", id=task_id)] == [0, 0, 1]


def test_a_server_that_takes_no_writes(
    own_streams_site: Site, own_valkey: Valkey
) -> None:
    """READONLY, as a primary that has become a replica answers."""
    with working(own_streams_site) as (work, _):
        running = work.send("sleep", 2)
        work.send("add", countdown=1)
        eventually(lambda: own_streams_site.runs(running), 10)
        with read_only(own_valkey):
            assert "read only" in refused(own_streams_site)
            eventually(lambda: own_streams_site.events("end", id=running), 15)
            time.sleep(6)  # longer than the lease

        work.runs()


@contextlib.contextmanager
def read_only(server: Valkey) -> Iterator[None]:
    """A server that is a replica of one that is not there; its data stay."""
    with server.client() as client:
        client.execute_command("REPLICAOF", HOST, "1")
        try:
            yield
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")


def test_a_server_that_comes_back_empty(
    own_streams_site: Site, own_valkey: Valkey
) -> None:
    """FLUSHALL: no group, no lease; what is sent next runs, what runs ends."""
    site = own_streams_site
    with site.node("-c", "2"):
        running = send(site, "sleep", 3)
        eventually(lambda: site.runs(running), 20)
        for _ in range(3):
            own_valkey.flush()
            work = Work(site)
            work.runs()
        eventually(lambda: site.events("end", id=running), 20)
        eventually(lambda: left_in(site) == [], 10)

    assert site.runs(running) == 1


def test_a_server_that_restarts(own_streams_site: Site, own_valkey: Valkey) -> None:
    """With its append-only file: all that it has taken, and each task once."""
    with working(own_streams_site) as (work, node):
        for _ in range(20):
            work.send("sleep", 0.3)
        late = work.send("sleep", 1, countdown=3)
        running = work.send("sleep", 4, priority=0)
        eventually(lambda: own_streams_site.runs(running), 20)
        own_valkey.stop()
        refused(own_streams_site)
        own_valkey.start()

        work.runs()
        eventually(lambda: own_streams_site.runs(late), 15)
        assert node.log().count(" ready.") >= 1


def test_a_server_that_is_away_for_long(
    own_streams_site: Site, own_valkey: Valkey
) -> None:
    """Longer than the lease, while a task runs: it is adopted, not run again."""
    with working(own_streams_site) as (work, node):
        running = work.send("sleep", 12)
        eventually(lambda: own_streams_site.runs(running), 10)
        own_valkey.stop()
        time.sleep(7)
        own_valkey.start()

        work.runs()
        over = "WARNING/main] The server of the broker answers again"
        eventually(lambda: over in node.log(), 10)


KINDS = {
    "all": {},
    "normal": {"_type": "normal"},
    "broadcasts": {"_type": "pubsub"},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_connections_that_are_killed(
    own_streams_site: Site, own_valkey: Valkey, kind: str
) -> None:
    """CLIENT KILL of what reads, what says and what listens, again and again."""
    with working(own_streams_site) as (work, node):
        for _ in range(30):
            work.send("sleep", 0.05)
        for _ in range(10):
            with own_valkey.client() as client:
                client.client_kill_filter(skipme=True, **KINDS[kind])
            time.sleep(0.2)

        work.runs()
        eventually(lambda: _answers(work.site), RECOVERS_SECONDS)
        assert "Traceback" not in node.log()


def test_what_is_held_across_a_lost_connection_leaves_the_prefetch_count_alone(
    own_streams_site: Site, own_valkey: Valkey
) -> None:
    """Messages of unknown tasks; the new connection begins with a count of its own."""
    site = own_streams_site
    site.settings = {"UNSTUCK": {"UNKNOWN_TASK_PATIENCE_SECONDS": 8}}
    with site.node("-c", "4") as node:
        for _ in range(3):
            send(site, "nobody_has_this_task")
        eventually(lambda: prefetch_count(site) == 7, RECOVERS_SECONDS)
        own_valkey.stop()
        own_valkey.start()
        eventually(lambda: node.log().count("Connected to") == 2, 20)
        eventually(lambda: len(site.letters()) == 3, 40)

        assert prefetch_count(site) == 4


def prefetch_count(site: Site) -> int:
    """How many messages the one node of a site takes at most."""
    with site.client() as app:
        answers = app.control.inspect(timeout=1).stats() or {}
    assert len(answers) == 1
    [stats] = answers.values()
    return int(stats["prefetch_count"])


def _answers(site: Site) -> bool:
    """Whether the node hears a broadcast and answers it."""
    with site.client() as app:
        return bool(app.control.inspect(timeout=1).ping())


def test_a_server_that_is_silent(own_streams_site: Site, own_valkey: Valkey) -> None:
    """SIGSTOP beyond the lease: `delay()` raises in time; nobody is taken for dead."""
    with working(own_streams_site) as (work, _):
        running = work.send("sleep", 10)
        eventually(lambda: own_streams_site.runs(running), 10)
        pid = own_valkey.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            refused(own_streams_site)
        finally:
            os.kill(pid, signal.SIGCONT)

        work.runs()


def test_a_connection_that_is_half_open(
    own_streams_site: Site, own_valkey: Valkey
) -> None:
    """What is sent vanishes, and no one says so; new connections work again later."""
    site = own_streams_site
    with Wire(own_valkey.port) as wire:
        direct, site.broker = site.broker, f"{STREAMS}redis://{HOST}:{wire.port}/0"
        with working(site) as (work, _):
            running = work.send("sleep", 8)
            eventually(lambda: site.runs(running), 10)
            wire.cut()
            refused(site)
            with via(site, direct):
                waits = work.send("add", 3, 4)
            wire.mend()

            eventually(lambda: site.runs(waits), RECOVERS_SECONDS)
            work.runs()
            eventually(lambda: _answers(work.site), RECOVERS_SECONDS)


@contextlib.contextmanager
def via(site: Site, url: str) -> Iterator[None]:
    """By another way to the same server."""
    before, site.broker = site.broker, url
    try:
        yield
    finally:
        site.broker = before


def test_who_sends_from_a_process_that_lives_on(
    own_streams_site: Site, own_valkey: Valkey
) -> None:
    """A web process: its connections from before an outage do no harm after it."""
    with own_streams_site.client() as app:

        def try_to_send() -> bool:
            try:
                app.send_task("tests.project.tasks.add", (1, 2), retry=False)
            except OperationalError:
                return False
            return True

        assert try_to_send()
        own_valkey.stop()
        assert not try_to_send()
        own_valkey.start()
        assert eventually(try_to_send, 1)
        assert try_to_send()


def test_who_sends_while_the_server_falls_silent(
    own_streams_site: Site, own_valkey: Valkey
) -> None:
    """On a connection that has worked before: it raises in time, and works again."""
    answer = own_streams_site.python(
        "import os, signal, time; from kombu.exceptions import OperationalError\n"
        "from tests.project.tasks import add\n"
        "add.delay(1, 2)\n"
        f"os.kill({own_valkey.pid}, signal.SIGSTOP)\n"
        "start = time.monotonic()\n"
        "try: add.delay(1, 2); answer = 'sent'\n"
        "except OperationalError: answer = time.monotonic() - start\n"
        f"finally: os.kill({own_valkey.pid}, signal.SIGCONT)\n"
        "add.delay(1, 2)"
    )

    assert isinstance(answer, float), answer
    assert answer < SENDS_SECONDS
