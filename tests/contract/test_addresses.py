"""Ways to reach a server: sockets, TLS, Sentinel, users."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis

from tests.contract.brokers import Broker, Inbox, new_queue, publish
from tests.contract.conftest import SERVERS
from tests.contract.lock_places import an_owner
from tests.services import started
from tests.sites import STREAMS
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.ports import HOST, free_port
from unstuck.locks import backends
from unstuck.locks.backend import Claim, Taken

MakeServer = Callable[..., Any]


@pytest.fixture(params=list(SERVERS))
def serve(request: pytest.FixtureRequest) -> Iterator[MakeServer]:
    """Starts a server with options of its own, of each kind in turn."""
    kind = SERVERS[request.param]
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> Any:
            class WithOptions(kind):  # type: ignore[misc, valid-type]
                def _command(self) -> list[str]:
                    return [*super()._command(), *options]

            return stack.enter_context(started(WithOptions))

        yield start


@pytest.fixture
def works(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Checks that a message gets through by an address, there and back, and a lock."""
    broker = Broker("streams")

    def check(url: str, **options: Any) -> None:
        queue = new_queue()
        publish(broker.connect(url=url, **options), queue, "there")
        inbox = Inbox(broker.connect(url=url, **options), queue)
        assert inbox.wait_for(1) == ["there"]
        inbox.messages[0].ack()
        inbox.connection.release()
        locks, owner = backends.at(url, options), an_owner()
        assert isinstance(locks.take("there", owner, 30), Taken)
        assert locks.release(Claim("there", owner.token))

    yield check
    broker.close()


@pytest.mark.parametrize(
    "scheme", ["unstuck+unix://", "unstuck+socket://", "unstuck+redis+socket://"]
)
def test_a_unix_socket(
    serve: MakeServer, works: Any, short_path: Path, scheme: str
) -> None:
    """With the number of a database in the query."""
    path = short_path / "sock"
    server = serve("--unixsocket", str(path))

    works(f"{scheme}{path}?virtual_host=2")

    with server.client(2) as client:
        assert client.exists("unstuck:queues")


def test_a_user_and_a_password(serve: MakeServer, works: Any) -> None:
    """In the address; wrong ones are refused."""
    server = serve()
    with server.client() as client:
        client.execute_command(
            *("ACL", "SETUSER", "worker", "on", ">s%t", "~*", "&*", "+@all")
        )
    at = server.url(1).replace("redis://", f"{STREAMS}redis://{{}}@")

    works(at.format("worker:s%25t"))

    with pytest.raises((redis.AuthenticationError, kombu.exceptions.OperationalError)):
        works(at.format("worker:wrong"))
    with server.client(1) as client:
        assert client.exists("unstuck:queues")


def test_a_password_alone(serve: MakeServer, works: Any, short_path: Path) -> None:
    """Of the default user, by TCP and by a socket."""
    path = short_path / "sock"
    server = serve("--unixsocket", str(path))
    with server.client() as client:
        client.config_set("requirepass", "secret")

    works(server.url().replace("redis://", f"{STREAMS}redis://:secret@"))
    works(f"{STREAMS}unix://:secret@{path}")


@pytest.fixture
def certificates(short_path: Path) -> Path:
    """A certificate that signs itself, for this machine."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
            *("-addext", f"subjectAltName=IP:{HOST},DNS:localhost"),
            *("-keyout", str(short_path / "key"), "-out", str(short_path / "cert")),
        ],
        check=True,
        capture_output=True,
    )
    return short_path


def test_tls(serve: MakeServer, works: Any, certificates: Path) -> None:
    """``unstuck+rediss``: who the server is, is checked unless one says otherwise."""
    key, cert, port = certificates / "key", certificates / "cert", free_port()
    try:
        serve(
            *("--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(cert), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(cert)),
        )
    except BaseException as error:  # pytest's own, with what the server has said
        if "tls" not in str(error).lower():
            raise
        pytest.skip("this server was built without TLS")
    url = f"{STREAMS}rediss://{HOST}:{port}/0"

    works(f"{url}?ssl_ca_certs={cert}")
    works(f"{url}?ssl_cert_reqs=CERT_NONE")
    with pytest.raises(kombu.exceptions.OperationalError, match="CERTIFICATE"):
        works(url)


@pytest.fixture
def sentinel(serve: MakeServer, short_path: Path) -> Iterator[tuple[int, Any]]:
    """The port of a Sentinel, and the server that it watches."""
    server, port = serve(), free_port()
    configuration = short_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind {HOST}\ndir {short_path}\n"
        f"sentinel monitor main {HOST} {server.port} 1\n"
    )
    program = server._command()[0]
    process = tether.spawn(
        [program, str(configuration), "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _knows(port), 10)
        yield port, server
    finally:
        process.send_signal(tether.END_NOW)
        process.wait()


def _knows(port: int) -> bool:
    try:
        with redis.Redis(host=HOST, port=port, socket_timeout=1) as client:
            return bool(client.execute_command("SENTINEL", "MASTERS"))
    except redis.RedisError:
        return False


def test_sentinel(sentinel: tuple[int, Any], works: Any) -> None:
    """By the name of the group; the first Sentinel may be gone."""
    port, server = sentinel
    works(f"unstuck+sentinel://{HOST}:{port}/3", master_name="main")
    works(
        f"unstuck+sentinel://{HOST}:1/3;unstuck+sentinel://{HOST}:{port}/3",
        master_name="main",
    )

    with server.client(3) as client:
        assert client.exists("unstuck:queues")


def test_the_first_server_that_answers(serve: MakeServer, works: Any) -> None:
    """Several addresses, as kombu has it."""
    server = serve()
    url = STREAMS + server.url()
    broker = Broker("streams")
    connection = broker.connect(url=f"{STREAMS}redis://{HOST}:1/0;{url}")

    connection.ensure_connection(max_retries=2, interval_start=0, timeout=5)

    queue = new_queue()
    publish(connection, queue, 1)
    assert Inbox(connection, queue).wait_for(1) == [1]
    broker.close()
