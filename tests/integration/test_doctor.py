"""`manage.py unstuck doctor` on running installations, sound ones and sick ones."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.sending import send
from tests.node import READY, Node, Site, children_of
from tests.processes import in_namespace
from tests.sites import STREAMS, MakeSite
from tests.waiting import eventually
from unstuck.dev import tether

SILENCED = ["unstuck.W051"]
"""What the tasks of our tests are there for."""

OF_THIS_HOST = "unstuck.D080"
"""What is process 1 where these tests run is not their business."""


def doctor(site: Site, *words: str) -> tuple[int, dict[str, list[Any]]]:
    """Its exit status and what it found, by number."""
    status, text = site.unstuck("doctor", "--json", *words)
    found: dict[str, list[Any]] = {}
    for each in json.loads(text)["findings"]:
        found.setdefault(each["id"].removeprefix("unstuck."), []).append(each)
    return status, found


def only(found: dict[str, list[Any]], number: str) -> Any:
    """The one finding of this number."""
    assert number in found, sorted(found)
    assert len(found[number]) == 1, found[number]
    return found[number][0]


def test_nobody_answers(own_streams_site: Site, own_valkey: Any) -> None:
    """A broker that hangs, a database that is away: both are said, and it ends in time.

    What needs nobody, a static check, is found all the same. A level may be let pass,
    silence may not.
    """
    site = own_streams_site
    site.settings = {"CELERY_TASK_TIME_LIMT": 60}
    site.database = "postgresql://postgres@127.0.0.1:1/shop"
    os.kill(own_valkey.pid, signal.SIGSTOP)
    status, found = doctor(site, "--fail-level", "error", "--timeout", "3")

    assert status == 1
    assert only(found, "E020")["docs"] == "docs/checks.md#e020"
    live = {number: found[number][0] for number in found if number.startswith("D")}
    assert set(live) == {"D001", "D003", "D005"}
    assert {each["level"] for each in live.values()} == {"not asked"}
    assert "no answer within 3 s" in live["D001"]["what"]
    assert "refused" in live["D003"]["what"]


def leave_few_descriptors(node: Node) -> None:
    """Let a child, which only waits, have hardly more than it has."""
    (shell,) = children_of(node.supervisor_pid)
    (supervisor,) = children_of(shell)
    child = next(pid for pid in children_of(supervisor) if os.getpgid(pid) == pid)
    used = len(os.listdir(f"/proc/{child}/fd"))
    resource.prlimit(child, resource.RLIMIT_NOFILE, (int(used / 0.85), 4096))


def test_two_sick_nodes(streams_site: MakeSite) -> None:
    """Settings, versions, tasks, queues, process 1, descriptors, memory, threads."""
    site = streams_site(
        SILENCED_SYSTEM_CHECKS=SILENCED,
        UNSTUCK={"RELEASE": "2"},
        CELERY_TASK_ROUTES={"tests.project.tasks.add": {"queue": "media"}},
        HAZARD="thread",
    )
    other = Site(
        directory=site.directory,
        broker=site.broker,
        results=site.results,
        settings={
            **site.settings,
            "UNSTUCK": {"RELEASE": "1"},
            "CELERY_TASK_TIME_LIMIT": 77,
        },
    )
    namespace = in_namespace()
    shell = (*namespace, "sh", "-c", '"$@"; true', "sh")
    below = ("-n", "below@%h", "-c", "2", "-Q", "celery,medai")
    load = ("-I", "tests.project.load", "--max-memory-per-child", "900000000")
    first = ("-n", "first@%h", "-Q", "celery", "-c", "1")
    with (
        site.node(*below, *load, prefix=shell) as node,
        other.node(*first, pool="threads", prefix=namespace),
    ):
        leave_few_descriptors(node)
        send(site, "add", 1, 2, queue="media")
        status, found = doctor(site)
        host = os.uname().nodename

    assert status == 1
    assert only(found, "D030")["facts"] == {
        "queue": "media",
        "app": "tests.project.app",
        "waiting": 1,
    }
    assert only(found, "D032")["facts"]["queue"] == "medai"
    assert only(found, "D070")["facts"]["name"] == "release"
    assert only(found, "D071")["facts"]["name"] == "task_time_limit"
    assert f"77 in first@{host}" in found["D071"][0]["what"]
    assert "tests.project.load." in only(found, "D072")["what"]
    assert only(found, "D080")["facts"]["command"] == "sh"
    assert only(found, "D081")["subject"] == f"first@{host}"
    assert only(found, "D082")["subject"] == f"below@{host}"
    assert "--max-memory-per-child" in only(found, "D083")["what"]
    assert "early-bird" in only(found, "D084")["what"]
    live = {number for number in found if number.startswith("D")}
    expected = "D030 D032 D070 D071 D072 D080 D081 D082 D083 D084"
    assert live == set(expected.split())


ONE_AFTER_THE_OTHER = """
import os, signal, time
from datetime import timedelta
from tests.waiting import eventually
from unstuck.doctor.ask import look
from unstuck.doctor.rule import run
from unstuck.doctor.table import TABLE
from unstuck.models import Node

def found():
    return [(each.id[-4:], each.subject) for each in run(TABLE.values(), look(app))]

answer = {{}}
real = time.time
time.time = lambda: real() + 100
answer["skewed"] = found()
time.time = real
eventually(lambda: Node.objects.filter(state="ready").exists(), 60)
os.kill({recorder}, signal.SIGSTOP)
patience, Node.LOST_AFTER = Node.LOST_AFTER, timedelta(0)
answer["no recorder"] = found()
Node.LOST_AFTER = patience
os.kill({main}, signal.SIGSTOP)
answer["no main"] = found()
os.kill({supervisor}, signal.SIGKILL)
Node.LOST_AFTER = timedelta(0)
answer["killed"] = found()
"""
"""The doctor with a clock and with a patience of its own."""


def test_a_sound_one_and_what_becomes_of_it(postgresql_archive: MakeSite) -> None:
    """Nothing is found, and all is named that was asked. Then its node gets into trouble,
    beside a worker of stock Celery, and is seen with another clock."""
    silenced = [*SILENCED, OF_THIS_HOST]
    site = postgresql_archive(SILENCED_SYSTEM_CHECKS=silenced)
    url, site.broker = site.broker, STREAMS + site.broker
    with site.node("-c", "1", "-n", "ours@x") as node:
        send(site, "add", 1, 2)
        status, text = site.unstuck("doctor")
        code = ONE_AFTER_THE_OTHER.format(
            main=node.main,
            recorder=node.companions_pids[0],
            supervisor=node.supervisor_pid,
        )
        with stock_worker(site, url, "stock@x"):
            found = site.python(code)

    assert status == 0, text
    assert "Nothing was found" in text
    for asked in (url, "celery, media, unstuck.dead", "(postgresql)", "ours@x"):
        assert asked in text
    skewed = [subject for number, subject in found["skewed"] if number == "D010"]
    assert skewed == ["the broker", "the database", "ours@x"]
    assert ["D007", "stock@x"] in found["skewed"]
    assert ["D055", "ours@x"] in found["no recorder"]
    assert ["D006", "ours@x"] in found["no main"]
    assert ["D054", "ours@x"] in found["killed"]


@contextmanager
def stock_worker(site: Site, broker: str, name: str) -> Iterator[None]:
    """A worker of stock Celery, once it is ready."""
    log = site.directory / "stock.log"
    celery = (sys.executable, "-m", "celery", "-b", broker, "worker")
    options = ("-P", "solo", "-n", name, "--without-mingle", "--without-gossip")
    with log.open("wb") as file:
        process = tether.spawn(
            [*celery, *options, "-l", "info"],
            env=dict(os.environ),
            cwd=site.directory,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: READY in log.read_text(), 60)
        yield
    finally:
        process.send_signal(tether.END_NOW)
        process.wait()
