"""A PostgreSQL of one's own: on a free port of 127.0.0.1, in a directory that goes with it.

It is as Debian has it but for memory, and for what a crash would cost: nobody keeps these
data, so it writes no log ahead of them and waits for no disk.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from unstuck.dev import tether
from unstuck.dev.ports import HOST, free_port

DEBIAN = Path("/usr/lib/postgresql")
START_SECONDS = 60.0
LOOK_SECONDS = 0.1

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "1GB",
    "max_wal_size": "16GB",
    "random_page_cost": "1.1",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class PostgreSQL:
    """The server; ``url`` is where its one database is."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self._directory = directory
        self._programs = _programs()
        self._port = free_port()
        self._settings = {**SETTINGS, "port": str(self._port), **settings}
        self.url = f"postgresql://postgres@{HOST}:{self._port}/postgres"

    @classmethod
    @contextmanager
    def open(cls, **settings: str) -> Iterator[PostgreSQL]:
        """One that leaves nothing behind."""
        directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        server = cls(directory, **settings)
        try:
            with server._running():
                yield server
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @property
    def version(self) -> str:
        """What it says it is."""
        with psycopg.connect(self.url) as connection:
            number = connection.info.server_version
        return f"PostgreSQL {number // 10_000}.{number % 10_000}"

    @contextmanager
    def _running(self) -> Iterator[None]:
        user = _unprivileged_user()
        if user is not None:
            os.chown(self._directory, user.pw_uid, user.pw_gid)
        data = str(self._directory / "data")
        subprocess.run(
            _as(
                user,
                [
                    *(str(self._programs / "initdb"), "-D", data, "-U", "postgres"),
                    *("--auth=trust", "--no-sync"),
                    *("--encoding=UTF8", "--locale=C.UTF-8"),
                ],
            ),
            cwd=self._directory,
            check=True,
            capture_output=True,
        )
        command = [str(self._programs / "postgres"), "-D", data]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with (self._directory / "log").open("wb") as log:
            process = tether.spawn(
                _as(user, command), cwd=self._directory, stdout=log, stderr=log
            )
        try:
            self._wait_until_ready(process)
            yield
        finally:
            process.send_signal(tether.END_NOW)
            process.wait()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > give_up_at:
                    log = (self._directory / "log").read_text(errors="replace")
                    raise SystemExit(f"PostgreSQL did not start.\n{log}") from None
                time.sleep(LOOK_SECONDS)
            else:
                return


def _programs() -> Path:
    """The newest there are: Debian keeps all but the clients off PATH."""
    versions = sorted(
        DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    found = str(versions[-1]) if versions else shutil.which("initdb")
    if found is None:
        raise SystemExit("PostgreSQL (initdb, postgres) is not installed.")
    return Path(found).resolve().parent


def _unprivileged_user() -> pwd.struct_passwd | None:
    """The user to run it as: it refuses root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _as(user: pwd.struct_passwd | None, command: Sequence[str]) -> list[str]:
    if user is None:
        return [*command]
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--", *command]
