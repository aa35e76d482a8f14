"""Probes tell busy from stuck from broker-away, and a deaf consumer heals."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.crash.chaos import LOAD, MODULE, send, sized
from tests.crash.test_supervisor import incidents
from tests.integration.sending import send as send_to_project
from tests.node import Site
from tests.probing import PROBES, answer, directory_of, probe, row
from tests.processes import alive
from tests.sites import MakeSite
from tests.waiting import eventually
from tests.wire import Wire
from unstuck.dev.ports import HOST, free_port

DEAF = ("-I", "tests.project.load,tests.project.deafness")
STALL_SECONDS = 8
SHORT_DEAF_SECONDS = 3
"""What `tests.project.deafness` makes of half a minute."""


def is_soon(site: Site, expected: tuple[str, bool, bool, bool]) -> None:
    """Wait until a row of the table is what the docs say."""

    def agrees() -> bool:
        assert row(site) == expected, answer(site)
        return True

    eventually(agrees, 40)


def test_each_row_of_the_table(
    own_streams_site: Site, own_valkey: Any, own_postgres: Any
) -> None:
    """A node from its start to its end, with all that may happen to it between."""
    site, port = own_streams_site, free_port()
    site.database = own_postgres.database().url
    site.manage("migrate", "-v", "0")
    site.settings = {
        "UNSTUCK": {
            "STALL_SECONDS": STALL_SECONDS,
            "PROBE_ADDRESS": f"{HOST}:{port}",
        }
    }
    status, said = probe(site, "live")
    assert status == 1
    assert "no worker has its socket in" in said
    with site.node(*LOAD, ready=False) as node:
        eventually(lambda: probe(site, "live")[0] == 0, 40)
        node.wait_until_ready()
        is_soon(site, ("fine", True, True, True))
        over_tcp(port)

        busy(site)
        own_postgres.stop()
        away = "the database has been away"
        eventually(lambda: away in answer(site)["says"], 40)
        is_soon(site, ("fine", True, True, True))
        paused(site)
        broker_away(site, own_valkey)
        main_stopped(site, node)
        stopping(site, node)
    assert "no worker has its socket in" in probe(site, "live")[1]
    assert list(directory_of(site).iterdir()) == []


def over_tcp(port: int) -> None:
    """The same at PROBE_ADDRESS."""
    for name in PROBES:
        url = f"http://{HOST}:{port}/{name}"
        with urllib.request.urlopen(url, timeout=5) as reply:
            assert reply.status == 200
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{HOST}:{port}/nothing", timeout=5)


def busy(site: Site) -> None:
    """All children run, and messages wait."""
    marker = site.directory / "go"
    for _ in range(3):
        send(site, "hold", str(marker))
    is_soon(site, ("busy", True, True, True))
    eventually(lambda: "; 1 message waits" in answer(site)["says"], 10)
    marker.touch()
    is_soon(site, ("fine", True, True, True))


def paused(site: Site) -> None:
    """An operator has it consume nothing, and again."""
    control(site, "cancel_consumer")
    send(site, "work")
    is_soon(site, ("paused", True, True, True))
    control(site, "add_consumer")
    is_soon(site, ("fine", True, True, True))


def control(site: Site, verb: str) -> None:
    """Cancel or add all consumers of the site."""
    with site.client() as app:
        for queue in ("celery", "media"):
            getattr(app.control, verb)(queue)


def broker_away(site: Site, server: Any) -> None:
    """Frozen: who restarts the worker for it does harm."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        is_soon(site, ("broker_away", True, False, False))
        status, said = probe(site, "working")
        assert (status, "See to the broker" in said) == (1, True)
    finally:
        os.kill(pid, signal.SIGCONT)
    is_soon(site, ("fine", True, True, True))


def main_stopped(site: Site, node: Any) -> None:
    """Not ready before the supervisor replaces it, and live all the time."""
    main = node.main
    os.kill(main, signal.SIGSTOP)
    seen = set()

    def is_back() -> bool:
        found = answer(site, "live")
        assert found["ok"]
        seen.add(found["state"])
        return not alive([main]) and found["state"] == "fine"

    eventually(is_back, 60)
    assert "main_silent" in seen


def stopping(site: Site, node: Any) -> None:
    """While it waits for its tasks, also after a SIGTERM to all processes."""
    marker = site.directory / "go-again"
    task_id = send(site, "hold", str(marker))
    eventually(lambda: site.events("start", id=task_id), 20)
    for pid in [*node.companions_pids, node.probes_pid, node.supervisor_pid]:
        os.kill(pid, signal.SIGTERM)
    is_soon(site, ("stopping", True, False, False))
    marker.touch()
    assert node.wait() == 0


def test_a_supervisor_that_stands_still(redis_site: MakeSite) -> None:
    """SIGSTOP of the supervisor: nobody watches, so it is not live."""
    site = redis_site(UNSTUCK={"STALL_SECONDS": 2})
    with site.node(*LOAD) as node:
        is_soon(site, ("fine", True, True, True))
        supervisor = node.supervisor_pid
        os.kill(supervisor, signal.SIGSTOP)
        is_soon(site, ("supervisor_stuck", False, False, False))
        os.kill(supervisor, signal.SIGCONT)
        is_soon(site, ("fine", True, True, True))


# Deafness.


def deaf_site(make: MakeSite, **settings: Any) -> Site:
    """A site whose main can be made deaf."""
    site = make(**settings)
    site.settings = {**settings, "DEAFNESS": str(site.directory / "deaf")}
    return site


def others_run(site: Site, swallowed: int, seconds: float) -> None:
    """Send more than the broker hands to a connection that nobody reads from."""
    sent = [send(site, "work") for _ in range(swallowed + 2)]

    def run() -> bool:
        ended = {line["id"] for line in site.events("end")}
        return len(ended.intersection(sent)) >= 2

    eventually(run, seconds)


def test_a_deaf_consumer_is_restarted(streams_site: MakeSite) -> None:
    """Its loop turns and nobody reads: connected anew; what runs goes on, once."""
    site = deaf_site(streams_site)
    with site.node(*DEAF) as node:
        main, running = node.main, send(site, "hold", str(site.directory / "go"))
        eventually(lambda: site.events("start", id=running), 20)
        (site.directory / "deaf").write_text("once")
        eventually(lambda: site.events("deaf"), 10)

        waits = send(site, "work")
        eventually(lambda: site.events("end", id=waits), 30)
        (site.directory / "go").touch()
        eventually(lambda: site.events("end", id=running), 20)

        [incident] = eventually(lambda: incidents(site, kind="deaf"), 20)
        assert node.main == main
        is_soon(site, ("fine", True, True, True))
    assert "its consumer is restarted" in incident["what"]
    assert "asynloop" in incident["stack"]
    assert len(site.events("start", id=running)) == 1


def test_a_main_that_stays_deaf_is_replaced(redis_site: MakeSite) -> None:
    """A new consumer did not help: a new main does. Once in ten minutes."""
    site = deaf_site(redis_site)
    with site.node(*DEAF) as node:
        main = node.main
        (site.directory / "deaf").write_text("for good")
        eventually(lambda: site.events("deaf"), 10)
        for _ in range(2):
            send(site, "work")
        is_soon(site, ("deaf", True, True, False))

        others_run(site, 0, 40)
        found = eventually(lambda: len(incidents(site, kind="deaf")) == 2, 20)
        assert found
        assert node.main != main
        is_soon(site, ("fine", True, True, True))


def test_a_half_open_connection_heals(amqp_site: MakeSite) -> None:
    """On RabbitMQ nobody would notice for minutes; broker away while nobody gets in.

    Celery closes its second connection in order, and waits for that: main is replaced.
    """
    site = deaf_site(amqp_site, UNSTUCK={"STALL_SECONDS": 6})
    direct = site.broker
    port = int(direct.rpartition(":")[2].partition("/")[0])
    with Wire(port) as wire:
        site.broker = direct.replace(f":{port}/", f":{wire.port}/")
        with site.node(*DEAF):
            is_soon(site, ("fine", True, True, True))
            wire.cut()
            is_soon(site, ("broker_away", True, False, False))
            wire.mend()
            site.broker = direct
            others_run(site, 4, 40)
            is_soon(site, ("fine", True, True, True))


@pytest.mark.parametrize("broker", ["amqp", "redis", "streams"][: sized(1, 3)])
def test_no_false_alarm(request: pytest.FixtureRequest, broker: str) -> None:
    """What is held for its time or a rate limit, and tasks that nobody knows."""
    site = deaf_site(request.getfixturevalue(f"{broker}_site"))
    with site.node(*DEAF) as node:
        with site.client() as app:
            app.control.rate_limit(f"{MODULE}.work", "3/m", reply=True, timeout=3)
            for _ in range(3):
                app.send_task(f"{MODULE}.work", countdown=300)
                app.send_task("nobody.knows.it", expires=1)
            for _ in range(8):
                app.send_task(f"{MODULE}.work")
        eventually(lambda: answer(site)["state"] == "full", 30)
        over = time.monotonic() + 3 * SHORT_DEAF_SECONDS
        while time.monotonic() < over:
            assert answer(site)["state"] in ("full", "fine")
            time.sleep(0.2)
    assert "takes none" not in node.log()


# Other pools.


@pytest.mark.parametrize("pool", ["threads", "solo"][: sized(1, 2)])
def test_other_pools(pool: str, redis_site: MakeSite) -> None:
    """A small supervisor beside answers; a loop that stands still is not live."""
    site = redis_site(UNSTUCK={"STALL_SECONDS": 3})
    with site.node("-c", "1", pool=pool) as node:
        is_soon(site, ("fine", True, True, True))
        task_id = send_to_project(site, "sleep", 5)
        eventually(lambda: site.runs(task_id), 20)
        is_soon(site, ("busy", True, True, True))
        time.sleep(3.5)
        assert answer(site, "live")["ok"]
        is_soon(site, ("fine", True, True, True))

        main = node.main_pid
        os.kill(main, signal.SIGSTOP)
        is_soon(site, ("main_stuck", False, False, False))
        os.kill(main, signal.SIGCONT)
        is_soon(site, ("fine", True, True, True))
