"""Each transport in turn, on the newest or the oldest server that can be had.

`make test` runs it with the newest kombu on the newest server, and with the oldest kombu
on the oldest (scripts/oldest). `UNSTUCK_CONTRACT_SERVER` may also be the path of a server.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.brokers import Broker
from tests.contract.databases import (  # noqa: F401
    database_locks,
    locks_in_postgresql,
    locks_in_sqlite,
    postgresql_for_locks,
    postgresql_locks,
    postgresql_url,
    sqlite_locks,
    sqlite_url,
)
from tests.contract.lock_places import Place
from tests.services import MissingServer, Valkey, started
from unstuck.dev.valkey import find_server
from unstuck.locks import backends
from unstuck.locks.backend import Backend

EMBEDDED = "valkey-9"
INSTALLED = "redis-7"
CHOSEN = os.environ.get("UNSTUCK_CONTRACT_SERVER", EMBEDDED)

NAME = Path(CHOSEN).name
STREAMS = [f"streams/{NAME}"]
VARIANTS = ["memory", f"redis/{NAME}", *STREAMS]


class EmbeddedValkey(Valkey):
    """The newest that can be had: the one of the wheel, whatever is on PATH."""

    def _command(self) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", "")
            program = str(find_server())
        return [program, *super()._command()[1:]]


class InstalledRedis(Valkey):
    """The oldest that can be had: Debian's."""

    def _command(self) -> list[str]:
        program = shutil.which("redis-server")
        if program is None:
            raise MissingServer("redis-server is not installed")
        return [program, *super()._command()[1:]]


class ServerAtPath(Valkey):
    """Any other one."""

    def _command(self) -> list[str]:
        return [CHOSEN, *super()._command()[1:]]


KINDS = {EMBEDDED: EmbeddedValkey, INSTALLED: InstalledRedis}
SERVERS = {NAME: KINDS.get(CHOSEN, ServerAtPath)}


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, Any]]:
    """The server, for all tests."""
    with started(SERVERS[NAME]) as server:
        yield {NAME: server}


@pytest.fixture(params=VARIANTS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Each transport in turn, with nothing in it."""
    yield from _broker(request, request.param)


@pytest.fixture(params=VARIANTS[1:])
def redis_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """kombu's own transport for Redis and ours, in turn."""
    yield from _broker(request, request.param)


@pytest.fixture(params=STREAMS)
def streams(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Ours, on each server in turn."""
    yield from _broker(request, request.param)


@pytest.fixture(params=list(SERVERS))
def own_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server for one test, to stop and to configure, of each kind in turn."""
    with started(SERVERS[request.param]) as server:
        yield server


@pytest.fixture
def own_streams(own_server: Any) -> Iterator[Broker]:
    """Ours, on a server that the test may stop."""
    broker = Broker("streams", own_server)
    yield broker
    broker.close()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name is short enough for a unix socket in it."""
    path = Path(tempfile.mkdtemp(prefix="us", dir="/tmp"))
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _broker(request: pytest.FixtureRequest, variant: str) -> Iterator[Broker]:
    name, _, server = variant.partition("/")
    if not server:
        broker = Broker(name)
    else:
        running = request.getfixturevalue("servers")[server]
        running.flush()
        broker = Broker(name, running)
    yield broker
    broker.close()


@pytest.fixture
def locks_in_valkey(servers: dict[str, Any]) -> Place:
    """Locks in a server that holds nothing else."""
    server = servers[NAME]
    server.flush()
    return Place(url=server.url(0))


@pytest.fixture(params=["valkey", "postgresql", "sqlite"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of place for locks in turn, with none in it."""
    made: Place = request.getfixturevalue(f"locks_in_{request.param}")
    return made


@pytest.fixture
def locks(place: Place) -> Iterator[Backend]:
    """What keeps the locks of this process, in each kind of place in turn."""
    backend = place.backend()
    backends.use(backend)
    yield backend
    backends.use(None)
