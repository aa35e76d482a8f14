"""The dashboard on a PostgreSQL that is slow, locked, without our tables, or away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.node import ROOT, Site
from unstuck.dashboard.reading import PAGE_SECONDS
from unstuck.dev import tether

ASK = """
import json, os, sys, time
import django
django.setup()
from django.db import connection
from unstuck.dashboard import patience
connection.settings_dict["CONN_MAX_AGE"] = int(os.environ["MAX_AGE"])
patience.PAGE_SECONDS, patience.CONNECT_SECONDS = 4, 2
from django.test import Client
from django.contrib.auth.models import User
from django.db import close_old_connections

client = Client(raise_request_exception=True)
if not User.objects.exists():
    User.objects.create_superuser("olga")
client.force_login(User.objects.get())
print("ready", flush=True)
for line in sys.stdin:
    # As a web server does between requests, and the test client does not.
    close_old_connections()
    began = time.monotonic()
    response = client.get(line.strip())
    told = {
        "status": response.status_code,
        "text": response.content.decode(),
        "retry": response.get("Retry-After"),
        "csp": response.get("Content-Security-Policy", ""),
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(told), flush=True)
"""
GENEROUS = 4 * PAGE_SECONDS
FROZEN = ("/unstuck/", "/unstuck/letters/")
"""Pages whose session and whose rows are asked of a server that gives no answer."""

METRICS = "/unstuck/metrics/"
PAGES = (
    "/unstuck/",
    "/unstuck/letters/",
    "/unstuck/letters/groups/",
    "/unstuck/workers/",
    "/unstuck/running/",
    "/unstuck/queues/",
    "/unstuck/incidents/",
    "/unstuck/audit/",
    "/unstuck/search/?q=abcd",
    "/unstuck/letters/replay/?all=1",
    "/unstuck/letters/purge/?all=1",
    "/unstuck/letters/1/",
)


class Viewer:
    """A web process that somebody has logged in to, asked for one page at a time."""

    def __init__(self, site: Site, max_age: int = 0) -> None:
        """``max_age``: how many seconds it keeps a connection to the database."""
        environment = {
            **site.environment,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "MAX_AGE": str(max_age),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", ASK],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def get(self, url: str) -> Any:
        """What the page says, and how long it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(url + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        with self._process:
            self._process.kill()


@pytest.fixture
def site(postgres: Any, migrated_postgresql: str, tmp_path: Path) -> Site:
    """A site on a PostgreSQL database of its own."""
    url = postgres.database(migrated_postgresql).url
    return Site(directory=tmp_path, broker="memory://", database=url)


@pytest.fixture
def viewer(site: Site) -> Iterator[Viewer]:
    """Somebody who has logged in."""
    viewer = Viewer(site)
    yield viewer
    viewer.end()


FILL = """
from tests.unit.dashboard.counted import minute, sample, store, took
from unstuck.models import QueueSample
store(*(minute(ago=ago, succeeded=2, runtimes=took(1, 2)) for ago in range(90)))
sample("work", 7, 1.5)
QueueSample.objects.update(grain_seconds=900)
answer = None
"""


def test_charts_are_drawn_from_rows(site: Site, viewer: Viewer) -> None:
    """What the database adds up and joins is in the SQL of each of them."""
    site.python(FILL)

    for url in ("/unstuck/", "/unstuck/?window=24h", "/unstuck/tasks/?window=7d"):
        page = viewer.get(url)
        assert page["status"] == 200
        assert "The database took too long" not in page["text"]
        shown = "shop.send" if "tasks" in url else "Waiting in queues"
        assert shown in page["text"]


def test_a_table_that_somebody_locks_leaves_the_rest(
    site: Site, viewer: Viewer
) -> None:
    """Each page says within seconds what is missing, and shows the other parts."""
    with psycopg.connect(_dsn(site)) as other:
        other.execute("LOCK TABLE unstuck_deadletter IN ACCESS EXCLUSIVE MODE")

        overview = viewer.get("/unstuck/")
        listed = viewer.get("/unstuck/letters/")
        workers = viewer.get("/unstuck/workers/")
        one = viewer.get("/unstuck/letters/1/")
        metrics = viewer.get(METRICS)

    assert metrics["status"] == 200
    assert 'unstuck_fleet_read{part="letters"} 0\n' in metrics["text"]
    assert 'unstuck_fleet_read{part="nodes"} 1\n' in metrics["text"]
    assert "unstuck_fleet_letters{" not in metrics["text"]
    assert overview["status"] == listed["status"] == 200
    assert "The database took too long" in overview["text"]
    assert "No worker has been seen yet." in overview["text"]
    assert "The database took too long" in listed["text"]
    assert "The database took too long" not in workers["text"]
    assert (one["status"], one["retry"]) == (503, "10")
    for page in (overview, listed, workers, one, metrics):
        assert page["seconds"] < GENEROUS
        assert "Traceback" not in page["text"]


def test_a_statement_that_takes_too_long_is_cancelled(
    site: Site, viewer: Viewer
) -> None:
    """On the server, and for this transaction only."""
    with psycopg.connect(_dsn(site), autocommit=True) as other:
        # A table whose rows each take a second to look at.
        other.execute("ALTER TABLE unstuck_node RENAME TO nodes")
        other.execute(
            "CREATE VIEW unstuck_node AS SELECT nodes.* FROM nodes, "
            "LATERAL (SELECT pg_sleep(30) FROM generate_series(1, 1) "
            "WHERE nodes.id > 0) AS slow"
        )
        other.execute(
            "INSERT INTO nodes (name, host, state, started_at, seen_at, pool, "
            "concurrency, queues, broker, unstuck_version, celery_version, "
            "python_version, facts_dropped, facts_left_out, release, running, "
            "facts_lag_seconds, chores_failed) "
            "VALUES ('w', '', 'ready', now(), now(), '', 1, '[]', '', '', '', '', 0, 0, "
            "'', '[]', 0, 0)"
        )

        page = viewer.get("/unstuck/workers/")
        busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' "
        running = other.execute(
            busy + "AND state = 'active' AND pid <> pg_backend_pid()"
        ).fetchone()

    assert page["status"] == 200
    assert "The database took too long" in page["text"]
    assert page["seconds"] < GENEROUS
    assert running == (0,)


def test_missing_tables_are_told_with_the_command(site: Site, viewer: Viewer) -> None:
    """Somebody has forgotten to migrate."""
    with psycopg.connect(_dsn(site), autocommit=True) as other:
        for table in ("deadletter", "node", "incident", "auditentry", "taskrun"):
            other.execute(f"ALTER TABLE unstuck_{table} RENAME TO gone_{table}")

    for url in PAGES:
        page = viewer.get(url)
        assert page["status"] == 503
        assert "python manage.py migrate unstuck" in page["text"]
    assert viewer.get(METRICS)["status"] == 503


def test_a_server_that_is_away_is_told_by_every_page(
    own_postgres: Any, tmp_path: Path
) -> None:
    """With our shell and a time to come back, never a traceback; and it comes back."""
    url = own_postgres.database().url
    site = Site(directory=tmp_path, broker="memory://", database=url)
    site.manage("migrate", "-v", "0")
    viewer = Viewer(site)
    try:
        own_postgres.stop()
        away = {url: viewer.get(url) for url in PAGES}
        unread = viewer.get(METRICS)
        own_postgres.start()
        back = viewer.get("/unstuck/letters/")
        read = viewer.get(METRICS)
    finally:
        viewer.end()

    assert (unread["status"], unread["retry"]) == (503, "10")
    assert unread["text"] == "The database of the fleet cannot be read: away.\n"
    assert (read["status"], "unstuck_fleet_led 0\n" in read["text"]) == (200, True)

    for page in away.values():
        assert (page["status"], page["retry"]) == (503, "10")
        assert "The database cannot be reached." in page["text"]
        assert "unstuck/dashboard.css" in page["text"]
        assert "frame-ancestors 'none'" in page["csp"]
        assert "127.0.0.1" not in page["text"]
        assert page["seconds"] < GENEROUS
    assert back["status"] == 200


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "anew"])
def test_a_server_that_gives_no_answer_holds_no_web_process(
    own_postgres: Any, tmp_path: Path, connected: bool
) -> None:
    """Stopped as a whole it keeps none of the bounds that were set on it."""
    url = own_postgres.database().url
    site = Site(directory=tmp_path, broker="memory://", database=url)
    site.manage("migrate", "-v", "0")
    viewer = Viewer(site, max_age=600 if connected else 0)
    pids = [own_postgres.pid]
    try:
        assert viewer.get("/unstuck/")["status"] == 200
        pids += tether.descendants(own_postgres.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        frozen = [viewer.get(url) for url in FROZEN]
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        back = viewer.get("/unstuck/letters/")
    finally:
        viewer.end()

    for page in frozen:
        assert (page["status"], page["retry"]) == (503, "10")
        assert "The database cannot be reached." in page["text"]
        assert page["seconds"] < GENEROUS
    assert back["status"] == 200


def _dsn(site: Site) -> str:
    return site.database
