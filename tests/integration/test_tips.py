"""Each tip of tips.md does what it says, written as it is written there.

Seconds stand for the tips' minutes. Where a tip promises less than we do, the test
holds us to ours: what does not succeed becomes a dead letter.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeSite
from tests.node import ROOT, Node, Site
from tests.project.tips import REDIS_PORT
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.ports import HOST, free_port

MODULE = "tests.project.tips"
ONE_SLOT = ("-c", "1")
OWN_RETURN = {
    "visibility_timeout": 1,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
"""Redis hands out again what a dead worker held after so many seconds."""


def worker(site: Site, *options: str) -> AbstractContextManager[Node]:
    """A worker that has the tasks of the tips; SIGKILLed at the end of the block."""
    return site.node("-I", MODULE, *options)


def send(site: Site, name: str, *args: Any, **options: Any) -> str:
    """Send a task of the tips; its id."""
    with site.client() as app:
        return str(app.send_task(f"{MODULE}.{name}", args, **options).id)


def result(site: Site, task_id: str) -> Any:
    """What the task returned, once it has."""
    with site.client() as app:
        return site.result(app, task_id, 40)


def wait_for_runs(site: Site, task_id: str, runs: int = 1) -> list[dict[str, Any]]:
    """The runs of a task, once there are so many."""

    def so_many() -> list[dict[str, Any]]:
        seen = site.events(id=task_id)
        assert len(seen) == runs, seen
        return seen

    return eventually(so_many, 40)


def wait_for_empty(site: Site, queue: str = "celery") -> None:
    """Wait until no message is in the queue."""
    eventually(lambda: site.queue_lengths(queue) == {queue: 0}, 20)


def was_killed(pid: int) -> bool:
    """Whether there is no such process any more."""
    return not Path(f"/proc/{pid}").exists()


# 1.1


def test_tip_1_1_hard_time_limit_as_task_option(redis_site: MakeSite) -> None:
    """`time_limit` ends a task that nothing else can, and the next one runs."""
    site = redis_site()

    with worker(site, *ONE_SLOT):
        check_hard_limit(site, "hard_time_limit")


def test_tip_1_1_hard_time_limit_as_global_setting(redis_site: MakeSite) -> None:
    """`CELERY_TASK_TIME_LIMIT` does it for a task that says nothing."""
    site = redis_site(CELERY_TASK_TIME_LIMIT=2)

    with worker(site, *ONE_SLOT):
        check_hard_limit(site, "hang_in_c")


def check_hard_limit(site: Site, name: str) -> None:
    """The task is killed after 2 seconds and buried; the one behind it runs."""
    hung = send(site, name)
    behind = send(site, "add", 1, 2)
    letter = site.letter(hung)
    assert result(site, behind) == 3

    [run] = site.events(id=hung)
    [next_run] = site.events(id=behind)
    assert letter["reason"] == "hard_limit"
    assert 2 <= letter["runtime_seconds"] < 8
    assert next_run["at"] - run["at"] > 2
    assert was_killed(run["pid"])
    assert next_run["pid"] != run["pid"]


# 1.2


def test_tip_1_2_soft_time_limit_as_task_option(redis_site: MakeSite) -> None:
    """`soft_time_limit` raises in the task, which may end gracefully or not."""
    site = redis_site()

    with worker(site, *ONE_SLOT) as node:
        check_soft_limit(
            site, node, "soft_time_limit", not_caught="soft_time_limit_not_caught"
        )


def test_tip_1_2_soft_time_limit_as_global_setting(redis_site: MakeSite) -> None:
    """`CELERY_TASK_SOFT_TIME_LIMIT` does it for tasks that say nothing."""
    site = redis_site(CELERY_TASK_SOFT_TIME_LIMIT=1)

    with worker(site, *ONE_SLOT) as node:
        check_soft_limit(site, node, "hang_gracefully", not_caught="hang")


def check_soft_limit(site: Site, node: Node, caught: str, *, not_caught: str) -> None:
    """Caught it is a success without a letter, not caught a letter; no child dies."""
    graceful = send(site, caught)
    buried = send(site, not_caught)
    [letter] = eventually(site.letters, 30)
    assert result(site, graceful) is None

    [graceful_run] = site.events(id=graceful)
    [buried_run] = site.events(id=buried)
    assert "Task exceeded soft time limit and will terminate." in node.log()
    assert letter["reason"] == "soft_limit"
    assert 1 <= letter["runtime_seconds"] < 6
    assert "SoftTimeLimitExceeded" in letter["traceback"]
    assert letter["task_id"] == buried
    assert graceful_run["pid"] == buried_run["pid"]


# 2


def test_tip_2_exception_is_logged_and_raised(redis_site: MakeSite) -> None:
    """The task's own log line is there, and the error is a letter with its traceback.

    Raising again does not retry, whatever the comment in the tip says.
    """
    site = redis_site()
    task_id = send(site, "log_and_raise")

    with worker(site) as node:
        letter = site.letter(task_id)
        wait_for_empty(site)

    assert "Task failed: division by zero" in node.log()
    assert letter["reason"] == "failed"
    assert letter["exception_type"] == "ZeroDivisionError"
    assert "return x / y" in letter["traceback"]
    assert "in log_and_raise" in letter["traceback"]
    assert site.runs(task_id) == 1


# 3


def test_tip_3_retry_as_task_options(redis_site: MakeSite) -> None:
    """`max_retries=3`: four runs, `default_retry_delay` apart, then a letter."""
    site = redis_site()

    with worker(site):
        check_retries(site, "retry", runs=4)


def test_tip_3_retry_as_global_settings(redis_site: MakeSite) -> None:
    """The two settings that stock Celery does not know limit retries here."""
    site = redis_site(CELERY_TASK_DEFAULT_RETRY_DELAY=1, CELERY_TASK_MAX_RETRIES=2)

    with worker(site):
        check_retries(site, "retry_by_settings", runs=3)


def check_retries(site: Site, name: str, *, runs: int) -> None:
    """The task runs so often, a second apart, and is then buried with its own error."""
    task_id = send(site, name)
    seen = wait_for_runs(site, task_id, runs)
    letter = site.letter(task_id)

    pauses = [later["at"] - earlier["at"] for earlier, later in pairwise(seen)]
    assert [run["attempt"] for run in seen] == list(range(runs))
    assert all(0.9 < pause < 5 for pause in pauses), pauses
    assert letter["reason"] == "failed"
    assert letter["attempts"] == runs
    assert letter["exception_type"] == "ConnectionError"
    assert site.runs(task_id) == runs


# 4.1


def test_tip_4_1_concurrency(redis_site: MakeSite) -> None:
    """`--concurrency=4` runs four tasks at once, each in a process, and never five."""
    site = redis_site()
    gate = site.directory / "gate"
    sent = [send(site, "wait_for", str(gate)) for _ in range(6)]

    # The harness adds its own -c unless it sees one; the last one holds.
    with worker(site, "-c", "1", "--concurrency=4") as node, site.client() as app:
        running = eventually(lambda: at_once(site, 4), 20)
        # The worker answers after it has done what it could with the messages.
        [active] = answer(app, "active").values()
        gate.touch()
        for task_id in sent:
            assert result(site, task_id) == "done"
        assert node.main_pid not in {run["pid"] for run in running}

    assert len(active) == 4
    assert len({run["pid"] for run in running}) == 4
    assert most_at_once(site) == 4


def at_once(site: Site, count: int) -> list[dict[str, Any]]:
    """The runs so far, once there are so many."""
    running = site.events()
    assert len(running) >= count, running
    return running


def most_at_once(site: Site) -> int:
    """How many tasks ran at the same moment, at most."""
    begun = [(run["at"], 1) for run in site.events()]
    ended = [(end["at"], -1) for end in site.events("end")]
    running = most = 0
    for _, change in sorted(begun + ended):
        running += change
        most = max(most, running)
    return most


def answer(app: Any, question: str) -> dict[str, Any]:
    """What `celery inspect QUESTION` tells of the one worker."""

    def ask() -> dict[str, Any]:
        inspect = app.control.inspect(timeout=5, limit=1)
        return dict(getattr(inspect, question)() or {})

    return eventually(ask, 20)


# 4.2


def test_tip_4_2_prefetch_limit(make_site: MakeSite) -> None:
    """A message waits on the broker, for any worker, and not behind a busy one."""
    site = make_site(CELERY_WORKER_PREFETCH_MULTIPLIER=1)
    gate = site.directory / "gate"
    blocked = [send(site, "wait_for", str(gate)) for _ in range(2)]

    with worker(site, "-c", "2", "-n", "busy@%h"), site.client() as app:
        for task_id in blocked:
            wait_for_runs(site, task_id)
        third = send(site, "add", 1, 2)
        # The worker answers after it has taken what it would take.
        [reserved] = answer(app, "reserved").values()
        assert site.queue_lengths("celery") == {"celery": 1}

        with worker(site, "-c", "2", "-n", "free@%h"):
            assert result(site, third) == 3
        gate.touch()
        for task_id in blocked:
            assert result(site, task_id) == "done"

    assert reserved == []
    [run] = site.events(id=third)
    assert run["node"].startswith("free@")
    assert [site.runs(task_id) for task_id in blocked] == [1, 1]


# 4.3


@pytest.mark.parametrize("name", ["CELERY_ACKS_LATE", "CELERY_TASK_ACKS_LATE"])
def test_tip_4_3_acks_late(make_site: MakeSite, name: str) -> None:
    """A worker that is SIGKILLed in mid-task has its task run again by the next."""
    site, task_id, gate = site_after_its_worker_was_killed(make_site, name, True)

    gate.touch()
    with worker(site):
        assert result(site, task_id) == "done"
        wait_for_empty(site)

    assert site.runs(task_id) == 2


@pytest.mark.parametrize("name", ["CELERY_ACKS_LATE", "CELERY_TASK_ACKS_LATE"])
def test_tip_4_3_without_acks_late(amqp_site: MakeSite, name: str) -> None:
    """The contrast, under both names: `False` is one run at most, and a letter."""
    site, task_id, gate = site_after_its_worker_was_killed(amqp_site, name, False)

    gate.touch()
    with worker(site):
        letter = site.letter(task_id)

    assert letter["reason"] == "lost"
    assert site.runs(task_id) == 1


def site_after_its_worker_was_killed(
    make_site: MakeSite, name: str, acks_late: bool
) -> tuple[Site, str, Path]:
    """A site with a task in mid-run when all of its worker was SIGKILLed."""
    settings: dict[str, Any] = {name: acks_late}
    site = make_site(**settings)
    if site.broker.startswith("redis"):
        site.settings = {**settings, "CELERY_BROKER_TRANSPORT_OPTIONS": OWN_RETURN}
    gate = site.directory / "gate"
    task_id = send(site, "wait_for", str(gate))
    with worker(site):
        wait_for_runs(site, task_id)
    return site, task_id, gate


def test_tip_4_3_reject_on_worker_lost(make_site: MakeSite) -> None:
    """A task whose child is SIGKILLed runs again, but not more than three times."""
    site = make_site(CELERY_ACKS_LATE=True, CELERY_TASK_REJECT_ON_WORKER_LOST=True)
    gate = site.directory / "gate"
    unlucky = send(site, "wait_for", str(gate))

    with worker(site, "-c", "4"):
        [run] = wait_for_runs(site, unlucky)
        os.kill(run["pid"], signal.SIGKILL)
        gate.touch()
        assert result(site, unlucky) == "done"
        poison = send(site, "kill")
        letter = site.letter(poison)
        assert result(site, send(site, "add", 1, 2)) == 3
        wait_for_empty(site)

    assert letter["reason"] == "poison"
    assert letter["cause"] == "killed by SIGKILL from outside"
    assert letter["deliveries"] == 3
    assert site.runs(poison) == 3
    assert site.runs(unlucky) == 2


def test_tip_4_3_without_reject_on_worker_lost(redis_site: MakeSite) -> None:
    """The contrast: `False` is one run, and its loss is a letter."""
    site = redis_site(CELERY_ACKS_LATE=True, CELERY_TASK_REJECT_ON_WORKER_LOST=False)
    task_id = send(site, "kill")

    with worker(site):
        letter = site.letter(task_id)

    assert letter["reason"] == "lost"
    assert site.runs(task_id) == 1


# 5.1


def test_tip_5_1_flower(make_site: MakeSite) -> None:
    """`celery -A proj flower` starts and shows our worker and its tasks."""
    site = make_site()

    with worker(site, "-E") as node, flower(site) as get, site.client() as app:
        [name] = answer(app, "ping")
        workers = eventually(lambda: get("/api/workers?refresh=1"), 40)
        # Flower shows what came after it listened, so send until it does.
        succeeded = eventually(lambda: shown(get, send(site, "add", 1, 2)), 40)
        failed = send(site, "fail_without", "/nowhere")
        eventually(lambda: shown(get, failed, state="FAILURE"), 20)
        online = get("/api/workers?status=1")
        assert node.main == workers[name]["stats"]["pid"]

    assert f"{MODULE}.add" in workers[name]["registered"]
    assert online == {name: True}
    assert succeeded["name"] == f"{MODULE}.add"
    assert succeeded["worker"] == name
    assert succeeded["result"] == "3"


@contextlib.contextmanager
def flower(site: Site) -> Iterator[Any]:
    """A running Flower; the value asks its HTTP API."""
    port = free_port()
    log_path = site.directory / "flower.log"
    with log_path.open("wb") as log:
        process = tether.spawn(
            [
                *(sys.executable, "-m", "celery", "-A", "tests.project.app", "flower"),
                *(f"--address={HOST}", f"--port={port}"),
            ],
            env={**site.environment, "FLOWER_UNAUTHENTICATED_API": "true"},
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def get(path: str) -> Any:
        assert process.poll() is None, log_path.read_text()
        connection = http.client.HTTPConnection(HOST, port, timeout=20)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
            except OSError as error:
                raise AssertionError(log_path.read_text()) from error
        assert response.status == 200, body
        return json.loads(body)

    try:
        yield get
    finally:
        process.send_signal(tether.END_NOW)
        process.wait()


def shown(get: Any, task_id: str, state: str = "SUCCESS") -> Any:
    """What Flower tells of a task that has come to this state."""

    def as_it_is() -> Any:
        task = get("/api/tasks").get(task_id)
        assert task is not None
        assert task["state"] == state, task
        return task

    return eventually(as_it_is, 2)


# 5.2


def test_tip_5_2_dead_letter_queue(
    make_site: MakeSite, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed task waits in `unstuck.dead`, is archived, and can be sent again."""
    # Django 6.1 asks SQLite what it can do in its checks, which Celery runs at the start.
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "true")
    site = make_site()
    archive = site.directory / "archive"
    site.database = f"sqlite:///{archive}/db.sqlite3"
    missing = site.directory / "missing"
    task_id = send(site, "fail_without", str(missing))

    with worker(site):
        wait_for_runs(site, task_id)
        eventually(lambda: site.queue_lengths("unstuck.dead")["unstuck.dead"] == 1, 20)
        assert site.queue_lengths("celery") == {"celery": 0}

        mend_database(archive, migrated_database)
        letter = site.letter(task_id)
        wait_for_empty(site, "unstuck.dead")

        missing.touch()
        replayed = replay(site, task_id)
        assert result(site, replayed) == "done"
        wait_for_empty(site)

    assert letter["reason"] == "failed"
    assert letter["task_name"] == f"{MODULE}.fail_without"
    assert letter["args"] == [str(missing)]
    assert "FileNotFoundError" in letter["traceback"]
    assert replayed != task_id
    assert (site.runs(task_id), site.runs(replayed)) == (1, 1)
    assert len(site.letters()) == 1


def mend_database(archive: Path, migrated_database: Path) -> None:
    """Give the site its database, all at once."""
    new = archive.with_suffix(".new")
    new.mkdir()
    shutil.copy(migrated_database, new)
    new.rename(archive)


def replay(site: Site, task_id: str) -> str:
    """Send the task of a letter again; its new id."""
    answered = site.python(
        "from django.core.management import call_command\n"
        "from unstuck.models import DeadLetter\n"
        f"call_command('unstuck', 'dead', 'replay', {task_id!r})\n"
        f"answer = DeadLetter.objects.get(task_id={task_id!r}).replayed_as"
    )
    return str(answered)


# 6


def test_tip_6_max_tasks_per_child(redis_site: MakeSite) -> None:
    """A child leaves after its tasks, between two of them; its neighbour goes on."""
    site = redis_site()
    gate = site.directory / "gate"
    neighbour = send(site, "wait_for", str(gate))

    with worker(site, "-c", "2", "--max-tasks-per-child=3"):
        [neighbours_run] = wait_for_runs(site, neighbour)
        sent = [send(site, "add", number, 0) for number in range(7)]
        assert [result(site, task_id) for task_id in sent] == list(range(7))
        gate.touch()
        assert result(site, neighbour) == "done"
        assert site.letters() == []

    pids = [site.events(id=task_id)[0]["pid"] for task_id in sent]
    first, second, third = pids[0], pids[3], pids[6]
    assert pids == [first] * 3 + [second] * 3 + [third]
    assert len({first, second, third, neighbours_run["pid"]}) == 4
    [neighbours_end] = site.events("end", id=neighbour)
    assert neighbours_end["pid"] == neighbours_run["pid"]


# 7


def test_tip_7_lock(
    redis_site: MakeSite, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tip's lock keeps the second call out, and is free after the first."""
    monkeypatch.setenv(REDIS_PORT, str(valkey.port))
    site = redis_site()
    gate = site.directory / "gate"

    with worker(site, "-c", "2") as node, valkey.client() as client:
        holder = send(site, "lock", str(gate))
        wait_for_runs(site, holder)
        kept_out = send(site, "lock", str(gate))
        assert result(site, kept_out) is None
        assert 0 < client.ttl("my_task_lock") <= 300
        eventually(lambda: "Task is already running." in node.log())

        gate.touch()
        assert result(site, holder) is None
        assert not client.exists("my_task_lock")
        after = send(site, "lock", str(gate))
        assert result(site, after) is None
        assert not client.exists("my_task_lock")

    assert [site.runs(task_id) for task_id in (holder, kept_out, after)] == [1, 0, 1]
    assert node.log().count("Task is already running.") == 1


# The recommended settings


RECOMMENDED = {
    "CELERY_TASK_TIME_LIMIT": 300,
    "CELERY_TASK_SOFT_TIME_LIMIT": 270,
    "CELERY_ACKS_LATE": True,
    "CELERY_TASK_REJECT_ON_WORKER_LOST": True,
    "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
}


def test_recommended_settings(make_site: MakeSite) -> None:
    """All of them in one worker, without the two traps that stock Celery has there.

    A task with a smaller limit of its own can be sent, and a task that kills its
    child stops.
    """
    site = make_site(**RECOMMENDED)

    options = ("-c", "4", "--max-tasks-per-child=100")
    with worker(site, *options) as node, site.client() as app:
        [stats] = answer(app, "stats").values()
        poison = send(site, "kill")
        one_minute, two_seconds = delay(site, "one_minute", "hard_time_limit")
        assert result(site, one_minute) == [60, 54]
        letters = eventually(lambda: reasons(site, 2), 40)
        assert result(site, send(site, "add", 1, 2)) == 3
        assert node.main == stats["pid"]
        wait_for_empty(site)

    assert letters == {poison: "poison", two_seconds: "hard_limit"}
    assert site.runs(poison) == 3
    assert site.runs(two_seconds) == 1
    assert stats["pool"]["timeouts"] == [270, 300]
    assert stats["pool"]["max-tasks-per-child"] == 100
    assert stats["prefetch_count"] == 4


def delay(site: Site, *names: str) -> list[str]:
    """Call the tasks' own `.delay()` in a process of the project; their ids."""
    answered = site.python(
        "from tests.project import tips\n"
        f"answer = [getattr(tips, name).delay().id for name in {names!r}]"
    )
    return list(answered)


def reasons(site: Site, count: int) -> dict[str, str]:
    """Why each task is a letter, once there are so many."""
    letters = site.letters()
    assert len(letters) >= count, letters
    return {letter["task_id"]: letter["reason"] for letter in letters}
