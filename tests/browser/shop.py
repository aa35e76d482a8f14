"""The example shop as a real web server, for a browser to look at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psycopg

from tests.browser import seed
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.ports import HOST, free_port
from unstuck.locks import backends
from unstuck.locks.backend import Backend

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "example"

TABLES = (
    "unstuck_deadletter",
    "unstuck_taskrun",
    "unstuck_node",
    "unstuck_queuesample",
    "unstuck_lease",
    "unstuck_incident",
    "unstuck_taskminute",
    "unstuck_auditentry",
    "unstuck_periodicentry",
)

PREPARE = """
import django
django.setup()
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from tests.browser import seed

def user(name, *codenames):
    one = User.objects.create_user(name, password=name, is_staff=True)
    one.user_permissions.set(Permission.objects.filter(codename__in=codenames))

call_command("migrate", verbosity=0)
looks = ["view_deadletter", "view_taskrun", "view_incident", "view_node", "view_auditentry"]
user("viewer", *looks)
user("operator", *looks, "operate", "view_payload")
seed.fill()
"""


class Shop:
    """One web server of the shop, with users ``viewer`` and ``operator``."""

    def __init__(self, directory: Path, broker: str, database: str = "") -> None:
        self.port = free_port()
        self.directory = directory
        self.broker = broker
        self.database = database
        self._web: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return f"http://{HOST}:{self.port}/unstuck/"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that make a process part of this shop."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLE)]),
            "DJANGO_SETTINGS_MODULE": "proj.settings",
            "SHOP_DATA_DIR": str(self.directory),
            "DATABASE_URL": self.database,
            "CELERY_BROKER_URL": self.broker,
            "CELERY_RESULT_BACKEND": "",
        }

    def prepare(self) -> None:
        """Make the tables, the users, and a copy of the rows of a bad day."""
        self._python(PREPARE)
        with self.connection() as connection:
            for table in TABLES:
                connection.execute(f"CREATE TABLE bad_{table} AS TABLE {table}")

    def start(self) -> None:
        """Serve."""
        command = [sys.executable, "-m", "unstuck.dev.web", f"{HOST}:{self.port}"]
        with (self.directory / "web.log").open("ab") as log:
            self._web = tether.spawn(
                command, env=dict(self.environment), cwd=EXAMPLE, stdout=log, stderr=log
            )
        eventually(self._answers, 30)

    def fill(self) -> None:
        """Have the rows of a bad day, and no others."""
        self.clear()
        with self.connection() as connection:
            for table in TABLES:
                connection.execute(f"INSERT INTO {table} SELECT * FROM bad_{table}")
        seed.take_locks(self.locks)

    def clear(self) -> None:
        """Have no rows."""
        with self.connection() as connection:
            connection.execute(f"TRUNCATE {', '.join(TABLES)}")
        for held in self.locks.all_held():
            self.locks.evict(held.name)

    @property
    def locks(self) -> Backend:
        """Those of its tasks, which are on its broker."""
        return backends.at(self.broker)

    @contextmanager
    def connection(self, name: str = "") -> Iterator[psycopg.Connection]:
        """To its database, or to another one of the same server."""
        url = self.database.replace("postgres://", "postgresql://")
        if name:
            url = f"{url.rpartition('/')[0]}/{name}"
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection

    def stop(self) -> None:
        """End the web server."""
        if self._web is not None:
            self._web.send_signal(tether.END_NOW)
            self._web.wait()
            self._web = None

    def _python(self, code: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=dict(self.environment),
            cwd=EXAMPLE,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://{HOST}:{self.port}/admin/login/", timeout=5) as page:
                return bool(page.status == 200)
        except OSError:
            return False
