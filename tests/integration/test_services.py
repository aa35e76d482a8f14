"""The servers of `tests.services` are real, keep their data and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from kombu import Connection, Queue

from tests.processes import alive
from tests.services import MissingServer, PostgreSQL, RabbitMQ, Valkey, started
from tests.waiting import eventually
from unstuck.dev import tether


class TestValkey:
    def test_restart_keeps_data(self, own_valkey: Valkey) -> None:
        """What was written before `restart()` is there after it, in a new process."""
        with own_valkey.client() as client:
            client.set("kept", "yes")
        before = own_valkey.pid

        own_valkey.restart()

        with own_valkey.client() as client:
            assert client.get("kept") == b"yes"
        assert own_valkey.pid != before

    def test_a_killed_server_is_started_again(self, own_valkey: Valkey) -> None:
        """`ensure_running()` brings back a server that a test has killed."""
        os.kill(own_valkey.pid, signal.SIGKILL)
        eventually(lambda: not own_valkey.is_ready())

        own_valkey.ensure_running()

        assert own_valkey.is_ready()

    def test_flush_empties_all_databases(self, valkey: Valkey) -> None:
        """`flush()` leaves no key in any database."""
        with valkey.client(db=3) as client:
            client.set("gone", "soon")

            valkey.flush()

            assert client.dbsize() == 0


class TestRabbitMQ:
    def test_restart_keeps_persistent_messages(self, own_rabbitmq: RabbitMQ) -> None:
        """A persistent message in a durable queue outlives `restart()`."""
        url = own_rabbitmq.url(own_rabbitmq.vhost())
        with Connection(url) as connection:
            connection.SimpleQueue("kept").put("yes")

        own_rabbitmq.restart()

        with Connection(url) as connection:
            assert connection.SimpleQueue("kept").get(timeout=5).payload == "yes"

    def test_virtual_hosts_do_not_see_each_other(self, rabbitmq: RabbitMQ) -> None:
        """A queue of one `vhost()` does not exist in the next."""
        first, second = rabbitmq.vhost(), rabbitmq.vhost()
        with Connection(rabbitmq.url(first)) as connection:
            Queue("mine", channel=connection.default_channel).declare()

        assert rabbitmq.ctl("list_queues", "--vhost", first, "name").split() == [
            "name",
            "mine",
        ]
        assert "mine" not in rabbitmq.ctl("list_queues", "--vhost", second, "name")

    def test_everything_listens_on_loopback(self, rabbitmq: RabbitMQ) -> None:
        """No port of RabbitMQ or of its epmd can be reached from outside."""
        ports = {rabbitmq.port, rabbitmq._epmd_port, rabbitmq._dist_port}

        assert {port for port, _ in _listeners()} >= ports
        loopback = {"0100007F", "00000000000000000000000001000000"}
        assert {name for port, name in _listeners() if port in ports} <= loopback


class TestPostgreSQL:
    def test_restart_keeps_data(self, own_postgres: PostgreSQL) -> None:
        """A committed row outlives `stop()` and `start()`, on the same port."""
        database = own_postgres.database()
        with psycopg.connect(database.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

        own_postgres.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(database.url, connect_timeout=2)
        own_postgres.start()

        with psycopg.connect(database.url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)

    def test_databases_are_fresh(self, postgres: PostgreSQL) -> None:
        """Each `database()` is another one."""
        assert postgres.database().name != postgres.database().name


class TestMissingServer:
    """What happens where a server program is not installed."""

    def test_a_laptop_skips_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without CI=true the reason to skip names the program."""
        monkeypatch.delenv("CI", raising=False)

        with pytest.raises(pytest.skip.Exception, match="rabbit"), started(_missing):
            pass

    def test_ci_fails_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With CI=true a missing program is a failure, so nothing goes untested."""
        monkeypatch.setenv("CI", "true")

        with pytest.raises(pytest.fail.Exception, match="rabbit"), started(_missing):
            pass


def _missing(directory: Path) -> Valkey:
    raise MissingServer("rabbitmq-server is not installed")


class TestDeathOfTheParent:
    @pytest.mark.parametrize(
        ("fixture", "kind"),
        [
            ("valkey", "Valkey"),
            ("rabbitmq", "RabbitMQ"),
            ("postgres", "PostgreSQL"),
        ],
    )
    def test_nothing_is_left_after_sigkill(
        self, request: pytest.FixtureRequest, fixture: str, kind: str
    ) -> None:
        """SIGKILL of whoever started a server ends all of its processes."""
        request.getfixturevalue(fixture)  # skips where the server is not installed
        with tempfile.TemporaryDirectory(prefix="unstuck-") as directory:
            parent = _start_parent(kind, directory)
            below = tether.descendants(parent.pid)
            assert len(below) >= 2, "a tether and a server"

            parent.kill()
            parent.wait()

            eventually(lambda: not alive(below), seconds=5)


PARENT = """
import signal, sys
from pathlib import Path
from tests import services

server = getattr(services, sys.argv[1])(Path(sys.argv[2]))
server.start()
print("ready", flush=True)
signal.pause()
"""


def _start_parent(kind: str, directory: str) -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, kind, directory],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "ready\n"
    return parent


def _listeners() -> set[tuple[int, str]]:
    """The TCP ports that somebody on this host listens on, with their addresses."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, port = local.partition(":")
            if state == "0A":
                found.add((int(port, 16), address))
    return found
