"""Tasks with a lock: what becomes of one that finds it busy, on every pool."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.conftest import MakeSite
from tests.node import Node, Site
from tests.services import Valkey
from tests.waiting import eventually
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Claim, Taken
from unstuck.locks.owner import new_owner

TASKS = "tests.project.locked."
LOAD = ("-I", "tests.project.locked")

CELERYS_POOL = {"CELERY_WORKER_POOL": "prefork"}
"""Celery's own pool of processes, in place of ours."""

POOLS = ["prefork", "celery's prefork", "threads", "solo"]


def send(site: Site, name: str, *args: Any, **options: Any) -> str:
    """Send a task; its id."""
    with site.client() as app:
        return str(app.send_task(TASKS + name, args, **options).id)


def locks_of(site: Site) -> Backend:
    """The locks of the site."""
    return backends.at(site.settings.get("UNSTUCK", {}).get("LOCK_URL", site.broker))


@contextmanager
def held(site: Site, name: str) -> Iterator[None]:
    """Somebody else has this lock."""
    locks = locks_of(site)
    owner = new_owner(task_id="the-holder", task_name="shop.other")
    assert isinstance(locks.take(name, owner, 60), Taken)
    try:
        yield
    finally:
        locks.release(Claim(name, owner.token))


@contextmanager
def node_of(
    make_site: MakeSite, pool: str, **settings: Any
) -> Iterator[tuple[Site, Node]]:
    """A site and a worker with this pool."""
    own = CELERYS_POOL if pool == "celery's prefork" else {}
    site = make_site(**settings, **own)
    with site.node(*LOAD, pool=pool.removeprefix("celery's ")) as node:
        yield site, node


def state(site: Site, task_id: str) -> str:
    with site.client() as app:
        return str(app.backend.get_state(task_id))


@pytest.mark.parametrize("pool", POOLS)
def test_a_busy_lock_ends_a_task_as_it_says(redis_site: MakeSite, pool: str) -> None:
    """Skipped, failed, retried and then failed, waited and then failed: none of them ran.

    Those that wait run one after another once it is free, at their first attempt.
    """
    names = ("skip", "fail", "retry", "wait_in_vain", "fail_and_try_again")
    with node_of(redis_site, pool) as (site, node):
        with held(site, "report:1"):
            ids = {name: send(site, name, 1) for name in names}
            buried = {name: ids[name] for name in names if name != "skip"}
            waiting = [send(site, "wait", 1, 0.05) for _ in range(4)]
            eventually(lambda: state(site, ids["skip"]) == "REVOKED", 20)
            for task_id in buried.values():
                eventually(lambda i=task_id: state(site, i) == "FAILURE", 30)
            assert site.events("run") == []
        eventually(lambda: len(site.events("end")) == len(waiting), 40)
        letters, runs = eventually(lambda: archived(site, len(buried)), 20)
        eventually(lambda: locks_of(site).all_held() == [])

    assert {letter["reason"] for letter in letters.values()} == {"failed"}
    for name, task_id in buried.items():
        letter = letters[task_id]
        assert letter["exception_type"] == "unstuck.core.errors.LockBusy"
        assert "shop.other[the-holder]" in letter["exception_message"]
        assert letter["attempts"] == (
            2 if name in ("retry", "fail_and_try_again") else 1
        )
    why = "is skipped: lock=report:1 why=\"The lock 'report:1' is held by shop.other"
    assert node.log().count(why) == 1
    (skipped,) = [run for run in runs if run["ending"] == "skipped"]
    assert (skipped["task_id"], skipped["verdict"]) == (ids["skip"], "ack")
    assert "shop.other[the-holder]" in skipped["cause"]
    assert_one_after_another(site, waiting)


def archived(site: Site, count: int) -> Any:
    """The letters by task and the runs, once there are so many letters."""
    letters, runs = site.python(
        "from unstuck.models import DeadLetter, TaskRun\n"
        "answer = [list(DeadLetter.objects.values()), list(TaskRun.objects.values())]"
    )
    assert len(letters) == count
    assert any(run["ending"] == "skipped" for run in runs)
    return {letter["task_id"]: letter for letter in letters}, runs


def assert_one_after_another(site: Site, ids: list[str]) -> None:
    starts, ends = site.events("run"), site.events("end")
    assert sorted(line["id"] for line in starts) == sorted(ids)
    assert {line["attempt"] for line in starts} == {0}
    fences = [line["fence"] for line in starts]
    assert fences == sorted(set(fences))
    for end, start in zip(ends, starts[1:], strict=False):
        assert end["at"] <= start["at"]


def test_tasks_wait_for_a_lock_on_rabbitmq(
    quorum_site: MakeSite, valkey: Valkey
) -> None:
    """As the same attempt and without a strike, in the delays of the broker."""
    site = quorum_site(UNSTUCK={"LOCK_URL": valkey.url(2), "MAX_STRIKES": 1})
    with site.node(*LOAD) as node:
        with held(site, "report:1"):
            ids = [send(site, "wait", 1, 0.05) for _ in range(3)]
            eventually(
                lambda: node.log().count("runs again: ending=lock_busy") > len(ids), 30
            )
        eventually(lambda: len(site.events("end")) == len(ids), 30)
        eventually(lambda: site.queue_lengths("celery") == {"celery": 0}, 20)

    assert_one_after_another(site, ids)


def test_what_depends_on_a_skipped_task_does_not_hang(redis_site: MakeSite) -> None:
    """A chain ends with it, and a chord has failed; nothing after it runs."""
    site = redis_site()
    code = (
        "from celery import chain, chord\n"
        "from tests.project.locked import after, skip\n"
        "one = chain(skip.s(1), after.s())()\n"
        "two = chord([skip.s(1), skip.s(2)])(after.s())\n"
        "def ending(result):\n"
        "    try:\n"
        "        return result.get(timeout=30)\n"
        "    except Exception as error:\n"
        "        return f'{type(error).__name__}: {error}'\n"
        "answer = [ending(one), ending(two)]"
    )
    with held(site, "report:1"), site.node(*LOAD):
        chained, in_chord = site.python(code)

    assert chained.startswith("TaskRevokedError: skipped: The lock 'report:1' is held")
    assert in_chord.startswith("TaskRevokedError: skipped: The lock 'report:1' is held")
    assert site.events("run", task=TASKS + "after") == []


UNIQUE = """
from unstuck import LockBusy
from tests.project.locked import after, unique, unique_or_the_first

def ask(call):
    try:
        return call().id
    except LockBusy as error:
        return ["refused", error.holder.task_id, error.holder.task]

"""


def test_a_unique_task_is_not_sent_twice(redis_site: MakeSite) -> None:
    """Until it has ended, retries included; whatever its ending is."""
    site = redis_site()
    first, again, other, same = site.python(
        UNIQUE + "first = ask(lambda: unique.delay(1, failures=1))\n"
        "answer = [first, ask(lambda: unique.delay(1)), ask(lambda: unique.delay(2, 9)),\n"
        "          ask(lambda: unique_or_the_first.delay(1))]"
    )
    assert again == ["refused", first, TASKS + "unique"]
    assert same == first

    with site.node(*LOAD):
        eventually(lambda: state(site, first) == "SUCCESS", 20)
        eventually(lambda: state(site, other) == "FAILURE", 20)
        assert site.runs(first) == 2
        assert locks_of(site).all_held() == []
        ended = site.python(
            UNIQUE + "app.control.revoke('revoked')\n"
            "answer = [ask(lambda: unique.apply_async((3,), expires=-5)),\n"
            "          ask(lambda: unique.apply_async((4,), task_id='revoked')),\n"
            "          ask(lambda: unique.apply_async((5, 'x')))]"
        )
        for task_id, ending in zip(
            ended, ("REVOKED", "REVOKED", "FAILURE"), strict=True
        ):
            eventually(lambda i=task_id, e=ending: state(site, i) == e, 20)
        eventually(lambda: locks_of(site).all_held() == [])


def test_the_ways_to_call_a_unique_task(redis_site: MakeSite) -> None:
    """Of many calls those are named that were refused; what is not sent keeps nobody out."""
    site = redis_site()
    answers = site.python(
        UNIQUE + "from celery import chain\n"
        "from django.db import transaction\n"
        "from kombu.exceptions import OperationalError\n"
        "from unstuck import NotAllSent\n"
        "from unstuck.locks import backends\n"
        "def held():\n"
        "    return {one.name: one.seconds_left for one in backends.current().all_held()}\n"
        "answer = []\n"
        "try:\n"
        "    unique.delay_many([(1,), (2,), (1,)])\n"
        "except NotAllSent as error:\n"
        "    answer.append([len(error.results), list(error.failed), sorted(held())])\n"
        "chain(after.s('x'), unique.si(1))()\n"
        "try:\n"
        "    unique.apply_async((6,), connection=app.connection('redis://127.0.0.1:1/0'),\n"
        "                       retry=False)\n"
        "except OperationalError:\n"
        "    answer.append(sorted(held()))\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        unique.apply_async((7,), publish='on_commit')\n"
        "        answer.append(held()['unique:unique:7'] < 61)\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    answer.append(held()['unique:unique:7'] < 61)\n"
        "with transaction.atomic():\n"
        "    unique.apply_async((8,), publish='on_commit')\n"
        "    answer.append(held()['unique:unique:8'] < 61)\n"
        "answer.append(held()['unique:unique:8'] > 3000)\n"
        "from tests.project.locked import fail, skip, wait\n"
        "from unstuck import lock\n"
        "app.conf.task_always_eager = True\n"
        "answer.append([fail.delay(9).get(), skip.delay(9).state, wait.run.__name__])\n"
        "with lock('report:9'):\n"
        "    result = skip.delay(9)\n"
        "    answer.append([result.state, result.ready(), result.get()])\n"
        "    answer.append(type(wait.delay(9).result).__name__)\n"
        "answer.append([unique.delay(10).get(), 'unique:unique:10' in held()])\n"
    )

    assert answers[0] == [3, [2], ["unique:unique:1", "unique:unique:2"]]
    assert answers[1] == ["unique:unique:1", "unique:unique:2"]
    assert answers[2:6] == [True, True, True, True]
    assert answers[6:] == [
        ["done", "SUCCESS", "wait"],
        ["IGNORED", True, None],
        "LockBusy",
        ["done", False],
    ]
    assert site.queue_lengths("celery")["celery"] == 4


# Nobody is in their own way.


@pytest.mark.parametrize("dies", ["main", "node"])
def test_the_lock_of_a_lost_run_keeps_no_one_from_the_next(
    streams_site: MakeSite, dies: str
) -> None:
    """`skip` is for when somebody else does the work; here nobody else does."""
    site = streams_site(UNSTUCK={"LEASE_SECONDS": 1})
    with site.node(*LOAD) as node:
        task_id = send(site, "lost_once", str(site.directory / "marker"))
        eventually(lambda: site.events("run", id=task_id))
        if dies == "main":
            os.kill(node.main, signal.SIGKILL)
            eventually(lambda: site.events("end", id=task_id), 20)
        else:
            node.kill_tree()
    if dies == "node":
        with site.node(*LOAD):
            eventually(lambda: site.events("end", id=task_id), 20)

    assert len(site.events("run", id=task_id)) == 2


def test_a_retry_at_once_is_not_in_its_own_way(streams_site: MakeSite) -> None:
    """Each attempt runs, though each lock is given back after the next was sent."""
    site = streams_site()
    with site.node("-c", "4", *LOAD):
        task_id = send(site, "retried_at_once")
        eventually(lambda: site.events("end", id=task_id), 60)

    runs = [run["attempt"] for run in site.events("run", id=task_id)]
    assert runs == list(range(13))


def test_a_task_that_calls_itself_has_one_lock(streams_site: MakeSite) -> None:
    """It is a plain function then, within the lock that is there."""
    site = streams_site()
    with site.node(*LOAD):
        task_id = send(site, "calls_itself", 2)
        eventually(lambda: site.events("over", id=task_id, deep=2))

    assert [line["deep"] for line in site.events("over")] == [0, 1, 2]
