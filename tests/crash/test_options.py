"""The options of `celery worker` and its remote control, with our pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.crash.chaos import LOAD, check_tidy, judge, runs_in, send
from tests.node import ROOT, Node, Site, children_of
from tests.processes import alive
from tests.sites import MakeSite
from tests.waiting import eventually
from unstuck.dev import tether


def control(site: Site, command: str, *, node: str = "", **arguments: Any) -> Any:
    """What the one node answers to a command of remote control."""
    with site.client() as app:
        answers = eventually(
            lambda: app.control.broadcast(
                command,
                arguments=arguments,
                destination=[node] if node else None,
                reply=True,
                timeout=2,
                limit=1,
            ),
            20,
        )
    ((answer,),) = [list(one.values()) for one in answers]
    return answer


def hold(site: Site) -> str:
    """Have a task run until its file is there; its id."""
    marker = site.directory / f"go-{os.urandom(3).hex()}"
    task_id = send(site, "hold", str(marker))
    eventually(lambda: site.events("start", id=task_id), 20)
    return task_id


def release(site: Site) -> None:
    """Let all of them go on."""
    for run in site.events("start"):
        marker = run.get("marker")
        if marker:
            Path(marker).touch()


def test_remote_control(redis_site: MakeSite) -> None:
    """ping, stats, active, reserved, pool_grow, pool_shrink, time_limit, shutdown."""
    site = redis_site(CELERY_WORKER_PREFETCH_MULTIPLIER=2)
    with site.node("-c", "1", "-n", "one@here", *LOAD) as node:
        assert control(site, "ping") == {"ok": "pong"}
        running = hold(site)
        waiting = send(site, "work")
        (active,) = control(site, "active")
        assert active["id"] == running
        assert active["worker_pid"] in node.children_pids
        eventually(
            lambda: waiting in [task["id"] for task in control(site, "reserved")], 20
        )

        stats = control(site, "stats")
        assert stats["pool"]["max-concurrency"] == 1
        assert set(stats["pool"]["processes"]) == set(node.children_pids)
        assert stats["pid"] == node.main

        assert "ok" in control(site, "pool_grow", n=2)
        eventually(lambda: site.events("end", id=waiting), 20)
        eventually(lambda: len(node.children_pids) == 4, 20)
        others = [hold(site) for _ in range(2)]
        assert "ok" in control(site, "pool_shrink", n=2)
        check_limit(site, node)
        release(site)
        eventually(lambda: len(node.children_pids) == 2, 30)
        eventually(lambda: all(site.events("end", id=i) for i in others), 20)

        name = "tests.project.load.work"
        assert "ok" in control(site, "time_limit", task_name=name, hard=2, soft=1)
        limited = send(site, "work", 60)
        letter = site.letter(limited)
        assert letter["reason"] in ("soft_limit", "hard_limit")

        with site.client() as app:
            app.control.shutdown()
        assert node.wait() == 0
    assert len(site.events("main")) == 1


def check_limit(site: Site, node: Node) -> None:
    """What has begun goes on although there are fewer processes now."""
    task_id = send(site, "work")
    time.sleep(0.5)
    assert not site.events("start", id=task_id)
    assert len(runs_in(site)) - len(site.events("end")) == 3


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_revoke_ends_a_running_task(redis_site: MakeSite, name: str) -> None:
    """Its process is gone, the task is revoked and neither lost nor run again."""
    site = redis_site()
    with site.node("-c", "2", *LOAD) as node:
        main, neighbour = node.main, hold(site)
        revoked, stubborn = hold(site), None
        (pid,) = {run.pid for run in runs_in(site) if run.task_id == revoked}
        revoke(site, revoked, name)
        eventually(lambda: not alive([pid]), 20)
        if name == "SIGTERM":
            stubborn = send(site, "ignore_sigterm", 300)
            eventually(lambda: site.events("ignoring", id=stubborn), 20)
            revoke(site, stubborn, name)
            eventually(lambda: site.events("start", id=stubborn), 20)
            run = runs_in(site)[-1]
            eventually(lambda: not alive([run.pid]), 20)

        ended = [task_id for task_id in (revoked, stubborn) if task_id]
        with site.client() as app:
            state = app.backend.get_state
            eventually(lambda: {state(i) for i in ended} == {"REVOKED"}, 20)
        release(site)
        eventually(lambda: site.events("end", id=neighbour), 20)
        check_tidy(node, site, 3)
        assert node.main == main

    assert len(site.events("start", id=revoked)) == 1
    assert site.letters() == []
    assert site.queue_lengths("celery") == {"celery": 0}


def revoke(site: Site, task_id: str, name: str) -> None:
    """Revoke a running task."""
    with site.client() as app:
        app.control.revoke(task_id, terminate=True, signal=name)


def test_children_are_replaced_after_so_many_tasks(redis_site: MakeSite) -> None:
    """--max-tasks-per-child, and -O fair is taken: nobody runs more, nothing is lost."""
    site = redis_site()
    options = ("-c", "2", "--max-tasks-per-child", "5", "-O", "fair")
    with site.node(*options, *LOAD) as node, site.client() as app:
        name = "tests.project.load.work"
        sent = {str(app.send_task(name, (0.0,)).id): name for _ in range(100)}
        eventually(lambda: len(site.events("end")) == 100, 60)
        check_tidy(node, site, 3)

    judgement = judge(site, sent, {})
    judgement.check()
    assert judgement.again == 0
    by_child = [run.pid for run in runs_in(site)]
    assert max(by_child.count(pid) for pid in by_child) <= 5


def test_autoscale(redis_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """--autoscale=4,1 grows under load and shrinks after it."""
    monkeypatch.setenv("AUTOSCALE_KEEPALIVE", "1")
    site = redis_site()
    with site.node("--autoscale=4,1", "-c", "1", *LOAD) as node:
        eventually(lambda: len(node.children_pids) == 2, 20)
        ids = [send(site, "hold", str(site.directory / "go")) for _ in range(6)]
        eventually(lambda: len(site.events("start")) == 4, 30)
        eventually(lambda: len(node.children_pids) == 5, 20)
        (site.directory / "go").touch()
        eventually(lambda: all(site.events("end", id=i) for i in ids), 30)
        eventually(lambda: len(node.children_pids) == 2, 40)
        check_tidy(node, site, 2)
        assert [len(site.events("start", id=i)) for i in ids] == [1] * 6


def test_revoked_ids_survive_a_restart(redis_site: MakeSite) -> None:
    """--statedb: also when main is killed in between, which never wrote it."""
    site = redis_site()
    state = ("--statedb", str(site.directory / "state"))
    with site.client() as app:
        revoked = str(app.send_task("tests.project.load.work", countdown=4).id)
    with site.node(*state, *LOAD) as node:
        eventually(lambda: revoked in node.log(), 20)
        with site.client() as app:
            app.control.revoke(revoked)
        eventually(lambda: revoked in control(site, "revoked"), 20)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
    with site.node(*state, *LOAD) as node:
        assert revoked in control(site, "revoked")
        eventually(lambda: site.queue_lengths("celery") == {"celery": 0}, 20)
        eventually(lambda: "Discarding revoked task" in node.log(), 20)

    assert not site.events("start", id=revoked)


def test_files_names_and_queues(redis_site: MakeSite) -> None:
    """--pidfile has the supervisor's pid and goes with it; --logfile, -n and -Q."""
    site = redis_site()
    pidfile, log = site.directory / "worker.pid", site.directory / "worker.log"
    options = ("--pidfile", str(pidfile), "--logfile", str(log), "-n", "two@here")
    with site.node(*options, "-Q", "media", *LOAD, ready=False) as node:
        eventually(lambda: site.events("main"), 30)
        assert int(pidfile.read_text()) == node.supervisor_pid
        other = send(site, "work")
        here = send(site, "work", queue="media")
        eventually(lambda: site.events("end", id=here), 20)
        assert "two@here ready." in log.read_text()
        eventually(lambda: f"{here}] succeeded" in log.read_text(), 20)
        assert control(site, "ping", node="two@here") == {"ok": "pong"}

        os.kill(node.main, signal.SIGKILL)
        eventually(lambda: len(site.events("main")) == 2, 20)
        assert int(pidfile.read_text()) == node.supervisor_pid
        node.send(signal.SIGTERM)
        assert node.wait() == 0
    assert not pidfile.exists()
    assert not site.events("start", id=other)


def test_detach(redis_site: MakeSite) -> None:
    """--detach: the command returns, the node works, SIGTERM to the pidfile ends it."""
    site = redis_site()
    pidfile, log = site.directory / "worker.pid", site.directory / "worker.log"
    command = [
        *(sys.executable, "-m", "celery", "-A", "tests.project.app", "worker"),
        *("--detach", "--pidfile", str(pidfile), "--logfile", str(log), "-l", "info"),
        *("-c", "1", "--without-mingle", "--without-gossip", *LOAD),
    ]
    # A shell that waits: the tether ends with its command, and takes all with it.
    script = f'cd {ROOT} && "$@" && touch {site.directory}/detached && sleep 300'
    tied = tether.spawn(
        ["sh", "-c", script, "sh", *command],
        env=site.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: (site.directory / "detached").exists(), 40)
        eventually(lambda: site.events("main"), 40)
        supervisor = int(pidfile.read_text())
        assert {event["pid"] for event in site.events("main")} < {
            supervisor,
            *children_of(supervisor),
        }
        task_id = send(site, "work")
        eventually(lambda: site.events("end", id=task_id), 20)
        below = [supervisor, *children_of(supervisor)]
        os.kill(supervisor, signal.SIGTERM)
        eventually(lambda: not alive(below), 40)
        assert not pidfile.exists()
    finally:
        tied.send_signal(tether.END_NOW)
        tied.wait()
