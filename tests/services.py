"""Real servers for tests: Valkey, RabbitMQ and PostgreSQL on free ports of 127.0.0.1.

Each starts when the first test asks for its fixture and ends with the session, also
when pytest is killed. A server that a test left stopped or hanging is started again
before the next test that uses it. A server program that is not installed skips the
test by name on a laptop and fails it where `CI=true`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
import redis

from tests.settings import database as django_database
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.errors import DevError
from unstuck.dev.ports import HOST, answers, free_port
from unstuck.dev.valkey import ValkeyServer, find_server


class MissingServer(Exception):
    """A server program is not installed; the message names it."""


class Server(ABC):
    """One real server: `start()`, `stop()`, `restart()` keep its port and its data."""

    start_seconds = 30.0
    stop_seconds = 20.0
    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def pid(self) -> int:
        """The server's own process, to stop, pause or kill."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server does its work at this moment."""

    def start(self) -> None:
        """Start the server and wait until it does its work."""
        with (self.directory / "output.log").open("ab") as log:
            self._process = tether.spawn(
                self._command(),
                env=self._environment(),
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._is_ready_or_dead, self.start_seconds)

    def stop(self) -> None:
        """End the server in its own orderly way; nothing of it is left running."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL to all its processes."""
        if self._process is not None:
            self._process.send_signal(tether.END_NOW)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop and start again, on the same port with the same data."""
        self.stop()
        self.start()

    def ensure_running(self) -> None:
        """Start the server anew unless it does its work."""
        if not self.is_ready():
            self.kill()
            self.start()

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _is_ready_or_dead(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            logs = [path.read_text() for path in self.directory.glob("*.log")]
            pytest.fail(f"{type(self).__name__} ended at its start:\n{''.join(logs)}")
        return self.is_ready()


AnyServer = TypeVar("AnyServer", bound=Server)


class Valkey(Server):
    """Valkey, or Redis where that is on PATH, with an append-only file."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        try:
            find_server()
        except DevError as error:
            raise MissingServer(str(error)) from error
        self._server = ValkeyServer(directory, self.port)

    @property
    def pid(self) -> int:
        """The server's own process, to stop, pause or kill."""
        with self.client() as client:
            return int(client.info("server")["process_id"])

    def url(self, db: int = 0) -> str:
        """The address of database `db`."""
        return self._server.url(db)

    def client(self, db: int = 0) -> redis.Redis:
        """A new client of database `db`, for the caller to close."""
        return redis.Redis(host=HOST, port=self.port, db=db, socket_timeout=5)

    def flush(self) -> None:
        """Empty all databases."""
        with self.client() as client:
            client.flushall()

    @contextlib.contextmanager
    def setting(self, **values: object) -> Iterator[None]:
        """The server, set to something for a while."""
        with self.client() as client:
            before = {name: client.config_get(name)[name] for name in values}
            for name, value in values.items():
                client.config_set(name, str(value))
            try:
                yield
            finally:
                for name, value in before.items():
                    client.config_set(name, value)

    def is_ready(self) -> bool:
        """Whether the server answers PING."""
        return self._server.answers()

    def _command(self) -> list[str]:
        return self._server.command


class RabbitMQ(Server):
    """RabbitMQ with a node name, a cookie, an epmd and directories of its own.

    Everything listens on loopback. The management plugin stays off: it doubles the
    time of a start (8 s to 15 s) and of a stop, and `rabbitmqctl` takes but 0.7 s.
    """

    start_seconds = 90.0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._programs = _rabbitmq_programs()
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._vhosts = count(1)
        self._write_configuration()

    @property
    def pid(self) -> int:
        """The Erlang machine, to stop, pause or kill."""
        return int((self.directory / "pid").read_text())

    def url(self, vhost: str = "/") -> str:
        """The AMQP address of `vhost`."""
        path = "%2F" if vhost == "/" else vhost
        return f"amqp://guest:guest@{HOST}:{self.port}/{path}"

    def vhost(self) -> str:
        """A fresh and empty virtual host that `guest` may use; its name."""
        name = f"test{next(self._vhosts)}"
        # One call of rabbitmqctl instead of add_vhost and set_permissions.
        self.ctl(
            "eval",
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"tests">>).',
        )
        return name

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl --quiet ARGUMENTS` prints."""
        done = subprocess.run(
            [self._programs / "rabbitmqctl", "--quiet", *arguments],
            env=self._environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_ready(self) -> bool:
        """Whether the server greets an AMQP client: the last step of its start."""
        return answers(self.port)

    def _command(self) -> list[str]:
        return [str(self._programs / "rabbitmq-server")]

    def _environment(self) -> dict[str, str]:
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        # What is on its way between two queues when the server stops is sent again after
        # so long (docs/rabbitmq.md, Delays); three minutes if nobody says otherwise.
        sent_again = "-rabbit dead_letter_worker_publisher_confirm_timeout 5000"
        own = self.directory
        return {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("RABBITMQ_", "ERL_"))
            },
            "HOME": str(own),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(own / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(own / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(own / "mnesia"),
            "RABBITMQ_LOG_BASE": str(own / "log"),
            "RABBITMQ_PID_FILE": str(own / "pid"),
            "RABBITMQ_NODENAME": f"unstuck{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} {sent_again}",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            # The start script then becomes the Erlang machine instead of waiting for
            # it in a shell, so that signals reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _write_configuration(self) -> None:
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{self.port}\nlog.console = true\n"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database of the PostgreSQL server."""

    name: str
    url: str

    @property
    def settings(self) -> dict[str, object]:
        """The entry for Django's `DATABASES`."""
        return django_database(self.url)


class PostgreSQL(Server):
    """PostgreSQL in a directory of its own; when we are root, as another user."""

    # Fast: SIGTERM would wait for the clients to leave.
    stop_signal = signal.SIGINT

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._programs = _postgresql_programs()
        self._data = directory / "data"
        self._databases = count(1)
        self._initialize()

    @property
    def pid(self) -> int:
        """The postmaster, to stop, pause or kill."""
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    @property
    def dsn(self) -> str:
        """The address of the server's own database, `postgres`."""
        return self.url("postgres")

    def url(self, name: str) -> str:
        """The address of the database `name`."""
        return f"postgresql://postgres@{HOST}:{self.port}/{name}"

    def database(self, template: str = "template1") -> Database:
        """A fresh database, empty or a copy of one that nobody is in."""
        name = f"test{next(self._databases)}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[arg-type]
        return Database(name=name, url=self.url(name))

    def is_ready(self) -> bool:
        """Whether a client can log in."""
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initialize(self) -> None:
        user = _unprivileged_user()
        if user is not None:
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        command = [
            *(str(self._programs / "initdb"), "-D", str(self._data)),
            *("-U", "postgres", "--auth=trust", "--no-sync"),
            *("--encoding=UTF8", "--locale=C"),
        ]
        subprocess.run(
            _as(user, command), cwd=self.directory, check=True, capture_output=True
        )

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "max_connections": "200",
        }
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        return _as(_unprivileged_user(), command)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """Valkey on a free port; its data survive `restart()`."""
    with started(Valkey) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """RabbitMQ on a free port; ask it for a `vhost()` of one's own."""
    with started(RabbitMQ) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """PostgreSQL on a free port; ask it for a `database()` of one's own."""
    with started(PostgreSQL) as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey for one test, to stop, pause or kill: it takes 0.1 s.

    Clients of the shared one keep connections from test to test, and the next test
    would find them broken.
    """
    with started(Valkey) as server:
        yield server


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ for one test, to stop, pause or kill: it takes 8 s."""
    with started(RabbitMQ) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgreSQL]:
    """A PostgreSQL for one test, to stop, pause or kill: it takes 1 s."""
    with started(PostgreSQL) as server:
        yield server


@pytest.fixture(autouse=True)
def _servers_are_up(request: pytest.FixtureRequest) -> None:
    for name in ("valkey", "rabbitmq", "postgres"):
        if name in request.fixturenames:
            request.getfixturevalue(name).ensure_running()


@contextlib.contextmanager
def started(kind: Callable[[Path], AnyServer]) -> Iterator[AnyServer]:
    """A server of `kind` in a temporary directory, gone afterwards.

    Where its program is not installed, the test is skipped; in CI it fails.
    """
    # Not pytest's own directory, which no other user may enter.
    directory = Path(tempfile.mkdtemp(prefix="unstuck-"))
    try:
        server = kind(directory)
        try:
            server.start()
            yield server
        finally:
            server.kill()
    except MissingServer as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _rabbitmq_programs() -> Path:
    # Debian's programs on PATH insist on the user rabbitmq; these do not.
    for directory in (Path("/usr/lib/rabbitmq/bin"), _directory_of("rabbitmq-server")):
        if directory is not None and (directory / "rabbitmq-server").exists():
            return directory
    raise MissingServer("rabbitmq-server is not installed")


def _postgresql_programs() -> Path:
    # Debian keeps all but the clients off PATH; the newest version first.
    debian = Path("/usr/lib/postgresql")
    versions = sorted(
        debian.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    directory = versions[-1].parent if versions else _directory_of("initdb")
    if directory is None:
        raise MissingServer("postgresql (initdb, postgres) is not installed")
    return directory


def _directory_of(program: str) -> Path | None:
    found = shutil.which(program)
    return None if found is None else Path(found).resolve().parent


def _unprivileged_user() -> pwd.struct_passwd | None:
    """The user to run PostgreSQL as: it refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as(user: pwd.struct_passwd | None, command: list[str]) -> list[str]:
    if user is None:
        return command
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--", *command]
