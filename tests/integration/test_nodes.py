"""The rows of nodes: who is there, and how."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.sending import TASKS, send
from tests.integration.tables import rows
from tests.node import Site
from tests.sites import MakeSite
from tests.waiting import eventually


def nodes(site: Site) -> list[dict[str, Any]]:
    """What `unstuck status` says of nodes."""
    status, text = site.unstuck("status", "--json")
    assert status == 0, text
    return list(json.loads(text)["nodes"])


def is_in(site: Site, *states: str) -> bool:
    """Whether the rows of nodes say just these states."""
    path = site.database.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as file:
        found = file.execute("SELECT state FROM unstuck_node ORDER BY name").fetchall()
    return [state for (state,) in found] == list(states)


def test_a_node_is_ready_and_stopping_and_gone(streams_site: MakeSite) -> None:
    """Its row says who it is; it is stopping as long as a task runs, and stays known."""
    site = streams_site()
    with site.node("-c", "2", "-Q", "celery,media", "-n", "one@%h") as node:
        eventually(lambda: is_in(site, "ready"), 20)
        [seen] = nodes(site)
        supervisor = node.supervisor_pid
        shown = site.unstuck("status")[1]
        task_id = send(site, "fail_when_told", str(site.directory / "go"))
        eventually(lambda: site.runs(task_id) == 1, 20)
        eventually(lambda: running(site), 30)
        [run] = json.loads(running(site)[0])
        node.send(signal.SIGTERM)
        eventually(lambda: is_in(site, "stopping"), 20)
        (site.directory / "go").touch()
        assert node.wait() == 0

    assert seen["name"].startswith("one@")
    assert (seen["pid"], seen["concurrency"]) == (supervisor, 2)
    assert seen["queues"] == ["celery", "media"]
    assert seen["broker"] == "unstuck+redis"
    assert seen["pool"] == "unstuck.pool.prefork:TaskPool"
    assert all(seen[f"{what}_version"] for what in ("unstuck", "celery", "python"))
    assert (seen["facts_dropped"], seen["facts_left_out"]) == (0, 0)
    assert seen["name"] in shown
    assert "ready" in shown
    assert is_in(site, "gone")
    assert run.pop("pid") > 0
    assert datetime.fromisoformat(run.pop("started_at")) <= datetime.now(UTC)
    task = {"task_id": task_id, "task_name": TASKS + "fail_when_told"}
    assert run == {**task, "queue": "celery", "soft": 270, "hard": 300}
    assert running(site) == []


def running(site: Site) -> list[str]:
    """The JSON of what nodes run, of those that run anything for long."""
    found = rows(site, "SELECT running FROM unstuck_node WHERE running <> '[]'")
    return [text for (text,) in found]


def test_a_node_that_is_killed_is_lost_after_a_while(redis_site: MakeSite) -> None:
    """It could not say goodbye; so long as it is not seen, the last it said is shown."""
    site = redis_site()
    with site.node("-n", "one@%h"), site.node("-n", "two@%h") as other:
        eventually(lambda: is_in(site, "ready", "ready"), 20)
        recorder = other.companions_pids[0]
        os.kill(recorder, signal.SIGTERM)
        eventually(lambda: recorder not in other.companions_pids, 20)
        # That was its recorder, and not the node.
        assert is_in(site, "ready", "ready")
        other.kill_tree()

        not_seen_since(site, datetime.now(UTC) - timedelta(seconds=61))

        assert [node["state"] for node in nodes(site)] == ["ready", "lost"]
        assert is_in(site, "ready", "ready")


def not_seen_since(site: Site, moment: datetime) -> None:
    """Have the last node not been seen since then."""
    path = site.database.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as file, file:
        file.execute(
            "UPDATE unstuck_node SET seen_at = ? WHERE name LIKE 'two@%'",
            [moment.replace(tzinfo=None).isoformat(" ")],
        )


def test_other_pools_have_their_rows_too(redis_site: MakeSite) -> None:
    """With the recorder beside the worker."""
    site = redis_site()
    with site.node(pool="threads") as node:
        eventually(lambda: is_in(site, "ready"), 20)
        [seen] = nodes(site)
        assert seen["pid"] == node.main_pid
        assert seen["broker"] == "redis"
        node.send(signal.SIGTERM)
        assert node.wait() == 0

    assert is_in(site, "gone")


def test_status_does_without_the_database(redis_site: MakeSite) -> None:
    """The queues are the broker's to tell."""
    site = redis_site()
    site.database = "postgresql://nobody@127.0.0.1:1/none"

    status, text = site.unstuck("status")
    told = json.loads(site.unstuck("status", "--json")[1])

    assert status == 0
    assert "Nodes: the database did not tell: " in text
    assert "unstuck.dead" in text
    assert told["nodes"] is None
