"""Every ending of the table comes true, on every pool and broker.

One worker a pool and broker, all messages at once: that is how they come in production.
"""

from __future__ import annotations

import json
from typing import Any

import kombu
import pytest

from tests.integration.conftest import MakeSite
from tests.integration.sending import TASKS, send, send_raw
from tests.node import Site
from tests.waiting import eventually

SETTINGS = {"UNSTUCK": {"UNKNOWN_TASK_PATIENCE_SECONDS": 3}}


BURIED = {
    "fail": "failed",
    "retry": "failed",
    "retry_with_what_cannot_be_sent": "failed",
    "reject": "rejected",
    "soft": "soft_limit",
    "hard": "hard_limit",
    "nobody_has_this_task": "unknown_task",
}
"""What every pool can bury without losing a process."""

DONE = {"soft_handled": 1, "soft_retried": 2, "ignore": 1}
"""What ends well, with how many runs."""

RUNS = {"retry": 3, "nobody_has_this_task": 0}


CELERYS_POOL = {"CELERY_WORKER_POOL": "prefork"}
"""Celery's own pool of processes, in place of ours."""


@pytest.mark.parametrize("pool", ["prefork", "celery's prefork", "threads", "solo"])
def test_each_message_ends_as_the_table_says(make_site: MakeSite, pool: str) -> None:
    """Succeeded + buried = sent; each reason is the table's; nothing is left behind."""
    own = CELERYS_POOL if pool == "celery's prefork" else {}
    pool = pool.removeprefix("celery's ")
    site = make_site(**SETTINGS, **own)
    buried = {name: send(site, name) for name in BURIED}
    done = {name: send(site, name) for name in DONE}
    expired = send(site, "add", 1, 2, expires=-5)
    once = send(site, "reject_once", str(site.directory / "marker"))
    send_raw(site, b"{not json", task=TASKS + "add", id="undecodable-1")
    send_raw(site, b"[1, 2]", task=TASKS + "add", id="undecodable-2")
    send_raw(site, b'{"hello": "world"}')
    odd = {"task": TASKS + "add", "id": "odd-stamps", "stamped_headers": 5}
    send_raw(site, b"[[1, 2], {}, {}]", **odd)
    send_raw(site, b"[[], {}, {}]", task=TASKS + "fail", id="odd", retries=-5)

    with site.node(pool=pool):
        sent_late = send(site, "add", 1, 2)
        letters = eventually(lambda: all_letters(site, len(BURIED) + 5), 60)
        for name, runs in DONE.items():
            eventually(lambda n=name, r=runs: site.runs(done[n]) == r, 20)
        eventually(lambda: site.runs(sent_late) == 1, 20)
        eventually(lambda: site.runs(once) == 2, 20)
        eventually(lambda: not any(site.queue_lengths("celery").values()), 20)

    by_id = {letter["task_id"]: letter for letter in letters}
    for name, reason in BURIED.items():
        letter = by_id.pop(buried[name])
        assert letter["reason"] == reason, letter
        assert letter["task_name"] == TASKS + name
        assert letter["queue"] == "celery"
        assert site.runs(buried[name]) == RUNS.get(name, 1)
    for odd_id in ("odd", "odd-stamps"):
        assert by_id.pop(odd_id)["reason"] == "failed"
    assert {letter["reason"] for letter in by_id.values()} == {"undecodable"}
    assert set(by_id) == {"undecodable-1", "undecodable-2", ""}
    assert site.runs(expired) == 0


def all_letters(site: Site, count: int) -> list[dict[str, Any]]:
    """The archive, once it holds so many letters."""
    letters = site.letters()
    assert len(letters) >= count, sorted(letter["reason"] for letter in letters)
    return letters


@pytest.mark.parametrize(
    ("name", "settings"),
    [("kill", {}), ("segfault", {}), ("os_exit", {}), ("kill", CELERYS_POOL)],
    ids=["kill", "segfault", "os_exit", "kill in celery's prefork"],
)
def test_a_task_that_kills_its_child_is_poison_after_three_runs(
    make_site: MakeSite, name: str, settings: dict[str, Any]
) -> None:
    """Processes: the child dies, main counts the strikes."""
    site = make_site(**settings)
    task_id = send(site, name)

    with site.node("-c", "1"):
        letter = site.letter(task_id, 60)

    assert letter["reason"] == "poison"
    assert letter["deliveries"] == 3
    assert letter["cause"]
    assert site.runs(task_id) == 3


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_task_that_kills_its_node_is_poison_after_three_runs(
    make_site: MakeSite, pool: str
) -> None:
    """Threads and solo: the whole node dies; the message itself carries the strikes."""
    redis = {"visibility_timeout": 1, "unacked_restore_interval": 1}
    options = {**redis, "unacked_restore_throttle": 1}
    amqp = "redis" not in make_site.__qualname__
    stock = make_site.__qualname__.startswith("redis_site")
    if stock and kombu.VERSION < (5, 7):
        pytest.skip("kombu 5.6 restores what a dead worker had too seldom for a test")
    site = make_site()
    if not amqp:
        site.settings = {"CELERY_BROKER_TRANSPORT_OPTIONS": options}
    task_id = send(site, "kill")

    for run in range(1, 4):
        with site.node(pool=pool, ready=False) as node:
            eventually(lambda r=run: site.runs(task_id) == r, 40)
            node.wait()
    with site.node(pool=pool):
        letter = site.letter(task_id, 60)

    assert letter["reason"] == "poison"
    assert letter["cause"] == "node lost"
    assert site.runs(task_id) == 3


def test_a_task_that_kills_its_child_once_succeeds(make_site: MakeSite) -> None:
    """One loss is no poison: the task runs again and its result is there."""
    site = make_site()
    with site.node("-c", "1"), site.client() as app:
        result = app.send_task(
            TASKS + "kill_once", [str(site.directory / "marker")], ignore_result=False
        )
        assert site.result(app, result.id) == "survived"

    assert site.runs(result.id) == 2
    assert site.letters() == []


def test_acks_early_is_at_most_once_and_its_loss_is_a_letter(
    make_site: MakeSite,
) -> None:
    """`acks_late=False`: one run, never a second, and nothing is silently gone."""
    site = make_site()
    killed = send(site, "kill_at_most_once")
    fine = send(site, "add_at_most_once", 1, 2)

    with site.node("-c", "1"):
        letter = site.letter(killed, 40)
        eventually(lambda: site.runs(fine) == 1, 20)

    assert letter["reason"] == "lost"
    assert site.runs(killed) == 1


def test_the_letter_holds_the_message_byte_for_byte(redis_site: MakeSite) -> None:
    """The body in the archive is the body that was sent."""
    site = redis_site()
    body = json.dumps([["sésame"], {}, {}], ensure_ascii=False).encode() + b"  \n"
    send_raw(site, body, task=TASKS + "fail", id="exact", retries=0)

    with site.node():
        letter = site.letter("exact")
        stored = site.python(
            "from unstuck.models import DeadLetter\n"
            "answer = list(bytes(DeadLetter.objects.get().message))"
        )

    assert bytes(stored) == body
    assert letter["args"] == ["sésame"]
    assert "fail (project/tasks.py)" in letter["fingerprint"]
    assert "ValueError: sésame" in letter["traceback"]
