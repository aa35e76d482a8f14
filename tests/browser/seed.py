"""Rows for the dashboard of the example shop.

What a shop on a bad day would have: letters of each reason, nodes in each state,
incidents, runs, and an audit. Times are near now, as the pages tell how long ago.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta
from typing import Any

from tests.browser import history
from unstuck.locks.backend import Backend, Owner

STACK = """Stack (most recent call last):
  File "/usr/lib/python3.11/threading.py", line 975, in run
    self._target(*self._args, **self._kwargs)
  File "/srv/shop/shop/tasks.py", line 73, in notify_without_timeout
    _deliver(delivery_id, timeout_seconds=None)
  File "/srv/shop/pay/api.py", line 88, in charge
    return requests.post(URL, json=payload)
  File "/usr/lib/python3/site-packages/requests/api.py", line 115, in post
    return request("post", url, data=data, json=json, **kwargs)
  File "/usr/lib/python3.11/ssl.py", line 1166, in read
    return self._sslobj.read(len, buffer)
"""
TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/shop/shop/tasks.py", line 64, in deliver_webhook
    _deliver(delivery_id, timeout_seconds=5)
  File "/srv/shop/shop/webhook.py", line 41, in deliver
    raise DeliveryError(f"{address} answered {status} to {customer}")
shop.webhook.DeliveryError: http://10.0.0.7/hook answered 503 to mina@example.com
"""
KILLED = 'File "/srv/shop/shop/picture.py", line 19, in shrink\n    return codec.resize(data)'
KINDS: tuple[tuple[int, dict[str, Any]], ...] = (
    (
        41,
        {
            "task_name": "shop.tasks.notify_without_timeout",
            "reason": "hard_limit",
            "cause": "hard limit of 10 s",
            "stack": STACK,
            "waiting_for": "read on 10.0.0.5:443 (wchan: wait_woken)",
            "fingerprint": "hard_limit | charge (pay/api.py)",
            "runtime_seconds": 10.01,
        },
    ),
    (
        9,
        {
            "task_name": "shop.tasks.deliver_webhook",
            "reason": "failed",
            "exception_type": "shop.webhook.DeliveryError",
            "exception_message": "http://10.0.0.7/hook answered 503 to mina@example.com",
            "traceback": TRACEBACK,
            "fingerprint": "failed | shop.webhook.DeliveryError | deliver (shop/webhook.py)",
            "attempts": 4,
            "runtime_seconds": 0.31,
        },
    ),
    (
        4,
        {
            "task_name": "shop.tasks.make_thumbnails",
            "reason": "poison",
            "cause": "killed by SIGSEGV (segmentation fault), for the third time",
            "stack": f"Stack (most recent call last):\n  {KILLED}\n",
            "fingerprint": "poison | shrink (shop/picture.py)",
            "deliveries": 3,
            "rss_bytes": 412 * 2**20,
        },
    ),
    (
        2,
        {
            "task_name": "shop.tasks.rebuild_index",
            "reason": "unknown_task",
            "fingerprint": "unknown_task | shop.tasks.rebuild_index",
        },
    ),
    (
        1,
        {
            "task_name": "",
            "reason": "undecodable",
            "cause": "the body is no JSON",
            "fingerprint": "undecodable",
            "args": None,
            "kwargs": None,
        },
    ),
)


def letters(now: datetime) -> list[Any]:
    """57 dead letters in five groups, the newest first hours old."""
    from unstuck.models import DeadLetter

    made = []
    for kind, (number, facts) in enumerate(KINDS):
        for turn in range(number):
            task_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{turn}"))
            args, kwargs = [turn + 1], {"customer": "mina@example.com"}
            shown = {**kwargs, "card_token": "[redacted]"}
            body = [args, {**kwargs, "card_token": "tok_4242"}, {}]
            known: dict[str, Any] = {
                "args": args,
                "kwargs": shown,
                "attempts": 1,
                "node": "celery@w1",
                "pid": 4711,
                **facts,
            }
            headers = {"id": task_id, "task": known["task_name"], "root_id": task_id}
            made.append(
                DeadLetter(
                    letter_id=uuid.uuid4(),
                    task_id=task_id,
                    queue="celery",
                    message=json.dumps(body).encode(),
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers=headers,
                    properties={"correlation_id": task_id},
                    buried_at=now - timedelta(minutes=7 * turn + kind, seconds=turn),
                    **known,
                )
            )
    return made


RUNNING: tuple[tuple[str, int, int | None, int | None], ...] = (
    ("shop.tasks.notify_without_timeout", 640, 300, 600),
    ("shop.tasks.build_report", 1300, 1200, 1800),
    ("shop.tasks.deliver_webhook", 8, 20, 30),
    ("shop.tasks.nightly", 9_400, None, None),
)


def running(
    node: Any, task_name: str, seconds: int, soft: int | None, hard: int | None
) -> dict[str, Any]:
    """A run as the recorder writes it."""
    return {
        "task_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"running {task_name}")),
        "task_name": task_name,
        "queue": "celery",
        "started_at": (node.seen_at - timedelta(seconds=seconds)).isoformat(),
        "soft": soft,
        "hard": hard,
        "pid": 4711,
    }


def nodes(now: datetime) -> list[Any]:
    """A node that is well, one that is lost, one that has gone."""
    from unstuck.models import Node

    def node(name: str, state: str, seen: timedelta, queues: list[str]) -> Any:
        return Node(
            name=name,
            host=name.partition("@")[2],
            pid=812,
            state=state,
            started_at=now - timedelta(days=3),
            seen_at=now - seen,
            pool="unstuck.pool.prefork:Pool",
            concurrency=8,
            queues=queues,
            broker="unstuck+redis",
            unstuck_version="0.1.0",
            celery_version="5.7.0",
            python_version="3.11.7",
        )

    busy = node("celery@w1", "ready", timedelta(seconds=-600), ["celery", "mail"])
    busy.running = [running(busy, *facts) for facts in RUNNING]
    return [
        busy,
        node("celery@w2", "ready", timedelta(minutes=7), ["celery", "media"]),
        node("celery@w3", "gone", timedelta(hours=5), ["celery"]),
    ]


def incidents(now: datetime) -> list[Any]:
    """A few of each kind."""
    from unstuck.models import Incident

    told = (
        ("stall", "main", "main was silent for 31 s and was started anew", STACK),
        ("process_lost", "recorder", "the recorder was killed by SIGKILL", ""),
        ("facts_dropped", "recorder", "1200 facts were dropped", ""),
    )
    return [
        Incident(
            incident_id=uuid.uuid4(),
            kind=kind,
            at=now - timedelta(minutes=11 * turn + 3),
            node="celery@w2",
            process=process,
            pid=813,
            what=what,
            stack=stack,
            details={"silent_seconds": 31.2} if stack else {},
        )
        for turn, (kind, process, what, stack) in enumerate(told * 2)
    ]


def runs(now: datetime, task_id: str) -> list[Any]:
    """The attempts that came before a letter."""
    from unstuck.models import TaskRun

    return [
        TaskRun(
            run_id=uuid.uuid4(),
            task_id=task_id,
            task_name="shop.tasks.deliver_webhook",
            queue="celery",
            attempt=attempt,
            ending="failed" if attempt == 4 else "retried",
            verdict="bury" if attempt == 4 else "ack",
            fingerprint="failed",
            node="celery@w1",
            ended_at=now - timedelta(minutes=30 - attempt),
        )
        for attempt in (1, 2, 3, 4)
    ]


def take_locks(locks: Backend) -> None:
    """A report that others wait for, a thumbnail, and a command in a shell."""
    for turn, name in enumerate(("report:2026-05", "shop.tasks.nightly", "stock:42")):
        task_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        task = "shop.tasks.build_report" if turn == 0 else "shop.tasks.nightly"
        owner = Owner(
            token=name,
            born=1.0,
            pid=812 + turn,
            node="web-1.shop.internal" if turn == 2 else "celery@w1",
            task_id="" if turn == 2 else task_id,
            task_name="" if turn == 2 else task,
        )
        locks.take(name, owner, 600)
    beat = Owner(token="beat", born=1.0, pid=7, node="celerybeat@w1")
    locks.take("unstuck.beat:shop", beat, 600)
    for turn in range(2):
        waiter = Owner(
            token=f"waiter {turn}",
            born=2.0,
            pid=901 + turn,
            node="celery@w2",
            task_id=str(uuid.UUID(int=turn)),
            task_name="shop.tasks.build_report",
        )
        locks.take("report:2026-05", waiter, 600, waits=True)


def samples(now: datetime) -> list[Any]:
    """One queue that is deep, one that is well, the dead letters; nobody has `media`."""
    from unstuck.models import QueueSample

    counted = (
        ("celery", 1204, 94.0, 16, 3, 2),
        ("mail", 0, None, 1, 0, 0),
        ("unstuck.dead", 0, None, 0, 0, 1),
    )
    return [
        QueueSample(
            queue=queue,
            at=now + timedelta(minutes=10),
            waiting=waiting,
            oldest_seconds=oldest,
            reserved=reserved,
            delayed=delayed,
            consumers=consumers,
        )
        for queue, waiting, oldest, reserved, delayed, consumers in counted
    ]


def entries(now: datetime) -> list[Any]:
    """One on time, one that the broker does not take, one that is disabled."""
    from unstuck.models import PeriodicEntry

    def entry(name: str, schedule: str, ago: float, wait: float, **known: Any) -> Any:
        return PeriodicEntry(
            beat="unstuck.beat:shop",
            name=name,
            task_name=f"shop.tasks.{name}",
            schedule=schedule,
            last_run_at=now - timedelta(seconds=ago),
            next_run_at=now + timedelta(seconds=wait),
            runs=412,
            told_by="celerybeat@w1",
            told_at=now,
            **known,
        )

    refused = "[Errno 111] Connection refused"
    return [
        entry("rebuild_index", "freq: 10.00 minutes", 60, 7_200),
        entry(
            "nightly",
            "crontab: 30 4 * * * (m/h/dM/MY/d)",
            9e4,
            -940,
            last_error=refused,
        ),
        entry(
            "yearly_report", "crontab: 0 5 1 1 * (m/h/dM/MY/d)", 9e6, 9e6, enabled=False
        ),
    ]


def fill() -> None:
    """Write all of them."""
    from django.utils import timezone

    from unstuck.models import (
        AuditEntry,
        DeadLetter,
        Incident,
        Lease,
        Node,
        PeriodicEntry,
        QueueSample,
        TaskRun,
    )

    now = timezone.now()
    made = DeadLetter.objects.bulk_create(letters(now))
    failed = next(letter for letter in made if letter.reason == "failed")
    TaskRun.objects.bulk_create(runs(now, failed.task_id))
    Node.objects.bulk_create(nodes(now))
    Incident.objects.bulk_create(incidents(now))
    history.fill(now)
    QueueSample.objects.bulk_create(samples(now))
    PeriodicEntry.objects.bulk_create(entries(now))
    Lease.objects.create(
        name="chores", holder="1", node="celery@w1", until=now + timedelta(hours=1)
    )
    AuditEntry.objects.create(
        who="olga", what="pause queue", why="the relay is full", target="mail"
    )
    AuditEntry.objects.create(
        who="olga",
        what="replay",
        why="the bank is back",
        target=made[0].task_id,
        details={"row": made[0].pk, "reason": "hard_limit", "args": [1]},
    )
    AuditEntry.objects.create(
        who="olga",
        what="purge",
        why="known, harmless",
        target="12 dead letters",
        details={"letters": 12, "reasons": {"rejected": 12}},
    )
