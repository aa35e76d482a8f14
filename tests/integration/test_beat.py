"""Beat while what it needs is away, and with schedulers of others."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.beats import Mailbox, beats, every, leader_of
from tests.integration.test_locked_tasks import CELERYS_POOL
from tests.node import Site, children_of
from tests.settings import INSTALLED_APPS
from tests.sites import MakeSite
from tests.waiting import eventually
from unstuck.locks import backends
from unstuck.worker.supervisor import EX_SOFTWARE

SOON = 60


def entries_of(site: Site) -> dict[str, sqlite3.Row]:
    """The rows that beat has told, by name."""
    with closing(
        sqlite3.connect(site.directory / "db.sqlite3", timeout=20)
    ) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT * FROM unstuck_periodicentry").fetchall()
    return {row["name"]: row for row in rows}


def test_what_cannot_be_sent_is_sent_when_the_broker_is_back(
    own_redis_site: Site, own_valkey: Any
) -> None:
    """With django-celery-beat, and locks in the database: once, and not a heap of them.

    Also after a SIGHUP, which loads everything anew with the same pid and pidfile.
    """
    pytest.importorskip("django_celery_beat")
    site = own_redis_site
    site.settings = {
        "INSTALLED_APPS": [*INSTALLED_APPS, "django_celery_beat"],
        "CELERY_BEAT_SCHEDULER": "django_celery_beat.schedulers:DatabaseScheduler",
        "CELERY_BEAT_SCHEDULE": {
            "often": every(1, "often"),
            "rare": every(3600, "rare"),
            "off": {**every(1, "off"), "enabled": False},
        },
        "UNSTUCK": {"LOCK_URL": "database"},
    }
    site.manage("migrate", "-v", "0")
    options = ("--pidfile", str(site.directory / "beat.pid"))
    with beats(site, "one", options=options) as running, Mailbox(site) as mailbox:
        eventually(lambda: len(mailbox.of("often")) > 1, SOON)
        supervisor, beat = running["one"].tree()
        os.kill(supervisor, signal.SIGHUP)
        eventually(lambda: running["one"].log().count("is starting.") == 2, SOON)
        eventually(lambda: running["one"].pid != beat, SOON)
        anew = time.time()
        eventually(lambda: mailbox.sent[-1].at > anew, SOON)
        assert running["one"].supervisor_pid == supervisor

        own_valkey.stop()
        said = "Beat could not send an entry, and tries again: entry=often"
        eventually(lambda: said in running["one"].log(), SOON)
        eventually(lambda: entries_of(site)["often"]["last_error"], SOON)
        own_valkey.start()
        back = time.time()
        eventually(lambda: mailbox.sent[-1].at > back + 2, SOON)
        eventually(lambda: not entries_of(site)["often"]["last_error"], SOON)
        rare, off = entries_of(site)["rare"], entries_of(site)["off"]

        assert running["one"].log().count(said) == 1
        assert len({one.task_id for one in mailbox.sent}) == len(mailbox.sent)
        caught_up = [one.at for one in mailbox.of("often") if one.at > back]
        assert all(two - one > 0.5 for one, two in pairwise(caught_up))
        assert (rare["enabled"], rare["runs"], rare["last_error"]) == (True, 0, "")
        assert rare["told_by"] == "one@test"
        assert (off["enabled"], off["next_run_at"]) == (False, None)
        assert running["one"].end() == 0


def test_beat_goes_on_after_a_hang_and_without_its_server(
    own_redis_site: Site, own_valkey: Any, tmp_path: Path
) -> None:
    """A scheduler of the project's that hangs, locks that are away; no table for news."""
    site, hang = own_redis_site, tmp_path / "hang"
    database = tmp_path / "db.sqlite3"
    elsewhere = database.rename(tmp_path / "elsewhere")
    site.settings = {
        "HANGS_WHILE": str(hang),
        "CELERY_BEAT_SCHEDULE": {"often": every(1, "often")},
        "UNSTUCK": {"STALL_SECONDS": 6},
    }
    scheduler = ("-S", "tests.project.periodic:Hanging")
    with (
        beats(site, "one", options=scheduler) as running,
        Mailbox(site) as mailbox,
    ):
        beat = running["one"]
        eventually(lambda: len(mailbox.sent) > 1, SOON)
        eventually(lambda: "takes no news of it" in beat.log(), SOON)

        hang.touch()
        hung = beat.pid
        eventually(lambda: "gave no sign of life" in beat.log(), SOON)
        hang.unlink()
        goes_on = time.time()
        eventually(lambda: mailbox.sent[-1].at > goes_on, SOON)
        assert beat.pid != hung

        own_valkey.stop()
        said = "Beat cannot ask whether another one leads"
        eventually(lambda: said in beat.log(), SOON)
        own_valkey.start()
        back = time.time()
        eventually(lambda: mailbox.sent[-1].at > back, SOON)
        assert beat.log().count(said) == 1
        assert "WARNING/beat] Beat can ask again which one leads" in beat.log()
        assert leader_of(backends.at(site.broker)) is not None
        elsewhere.rename(database)
        eventually(lambda: "takes news of beat again" in beat.log(), SOON)
        assert len({one.task_id for one in mailbox.sent}) == len(mailbox.sent)


def test_beat_is_beside_a_worker_with_a_pool_of_celery_s(redis_site: MakeSite) -> None:
    """-B with threads: a process of its own, which lets go of its lock at the end."""
    site = redis_site(CELERY_BEAT_SCHEDULE={"often": every(0.5, "often")})
    locks = backends.at(site.broker)
    schedule = str(site.directory / "schedule")
    with (
        site.node("-B", "-s", schedule, "-n", "w@test", pool="threads") as node,
        Mailbox(site) as mailbox,
    ):
        eventually(lambda: len(mailbox.sent) > 1, SOON)
        leader = leader_of(locks)
        assert leader is not None
        assert leader.owner.node == "w@test"
        assert leader.owner.pid != node.main_pid
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        assert leader_of(locks) is None


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_node_whose_supervisor_beside_it_is_killed_ends(
    redis_site: MakeSite, pool: str
) -> None:
    """Nobody would send what is due: whoever keeps the node starts all of it anew."""
    own = CELERYS_POOL if pool == "prefork" else {}
    site = redis_site(CELERY_BEAT_SCHEDULE={"often": every(0.5, "often")}, **own)
    locks = backends.at(site.broker)
    schedule = str(site.directory / "schedule")
    with site.node("-B", "-s", schedule, "-n", "w@test", pool=pool) as node:
        leader = eventually(lambda: leader_of(locks), SOON)
        beat, beside = leader.owner.pid, children_of(node.main_pid)
        [aside] = [pid for pid in beside if beat in children_of(pid)]

        os.kill(aside, signal.SIGKILL)

        assert node.wait(SOON) == EX_SOFTWARE
        said = "The supervisor beside this worker is gone"
        assert node.log().count(said) == 1
        assert "ended=SIGKILL" in node.log()
