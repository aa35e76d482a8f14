"""A week of the example shop in numbers: minutes, samples of queues, and a deploy.

For the last day as a recorder writes it, and before that as hours. Since the deploy, forty
minutes ago, one task hangs and the queue grows.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from unstuck.core.histogram import Histogram

TASKS = (
    # name, queue, runs a minute, usual seconds
    ("shop.tasks.send_receipt", "mail", 42, 0.18),
    ("shop.tasks.deliver_webhook", "celery", 24, 0.35),
    ("shop.tasks.make_thumbnails", "media", 9, 2.4),
    ("shop.tasks.notify_without_timeout", "celery", 14, 0.6),
    ("shop.tasks.rebuild_report", "celery", 1, 41.0),
    ("shop.tasks.sync_stock", "celery", 6, 1.1),
)
HANGS = "shop.tasks.notify_without_timeout"
DEPLOYED = timedelta(minutes=40)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def minutes(now: datetime) -> list[Any]:
    """What each task did."""
    dice = random.Random(7)
    return [
        _row(dice, task, at, span, now) for at, span in _times(now) for task in TASKS
    ]


def samples(now: datetime) -> list[Any]:
    """What has waited in each queue."""
    from unstuck.models import QueueSample

    dice = random.Random(8)
    made = []
    for number in range(24 * 60):
        at = now - number * MINUTE
        for queue, usual in (("celery", 6), ("mail", 3), ("media", 9)):
            late = max(0.0, 40 - number) if queue == "celery" else 0.0
            waiting = round(dice.uniform(0, usual) * _tide(at) + 9 * late)
            made.append(
                QueueSample(
                    queue=queue,
                    at=at,
                    waiting=waiting,
                    oldest_seconds=waiting / 10 + 12 * late,
                    reserved=8,
                    consumers=2,
                    grain_seconds=60,
                )
            )
    return made


def deploys(now: datetime) -> list[Any]:
    """Releases that have come."""
    from unstuck.models import Incident

    told = ((DEPLOYED, "2026.11.2", "2026.11.1"), (9 * HOUR, "2026.11.1", "2026.10.9"))
    return [
        Incident(
            incident_id=uuid.uuid4(),
            kind="release",
            at=now - before,
            node="celery@w1",
            what=f"Release {release} has come: celery@w1 is of it.",
            details={"release": release, "before": former},
        )
        for before, release, former in told
    ]


def runs(now: datetime) -> list[Any]:
    """The latest that hung."""
    from unstuck.models import TaskRun

    return [
        TaskRun(
            run_id=uuid.uuid4(),
            task_id=str(uuid.uuid4()),
            task_name=HANGS,
            queue="celery",
            ending="hard_limit",
            verdict="bury",
            fingerprint="hard_limit",
            node="celery@w1",
            ended_at=now - number * MINUTE,
        )
        for number in range(1, 6)
    ]


def fill(now: datetime) -> None:
    """Write all of them."""
    from unstuck.models import Incident, QueueSample, TaskMinute, TaskRun

    TaskRun.objects.bulk_create(runs(now))
    TaskMinute.objects.bulk_create(minutes(now))
    QueueSample.objects.bulk_create(samples(now))
    Incident.objects.bulk_create(deploys(now))


def _times(now: datetime) -> Iterator[tuple[datetime, int]]:
    minute = now.replace(second=0, microsecond=0)
    yield from ((minute - number * MINUTE, 1) for number in range(60))
    yield from ((minute - 5 * number * MINUTE, 1) for number in range(12, 24 * 12))
    hour = minute.replace(minute=0)
    yield from ((hour - number * HOUR, 60) for number in range(25, 7 * 24))


def _tide(at: datetime) -> float:
    """Fewer at night."""
    return 1.1 + math.sin((at.hour - 9) / 24 * math.tau)


def _row(
    dice: random.Random,
    task: tuple[str, str, int, float],
    at: datetime,
    span: int,
    now: datetime,
) -> Any:
    from unstuck.models import TaskMinute

    name, queue, often, usual = task
    bad = name == HANGS and now - at < DEPLOYED
    runs = max(1, round(often * _tide(at) * dice.uniform(0.7, 1.3)))
    many = runs * (span if span > 1 else 1 if now - at < HOUR else 5)
    hung = round(many * 0.4) if bad else 0
    failed = sum(dice.random() < 0.02 for _ in range(min(many, 100)))
    late = max(0.0, 40 - (now - at) / MINUTE) if queue == "celery" else 0.0
    runtimes, waits = Histogram(), Histogram()
    for _ in range(min(many, 40)):
        runtimes.add(10.0 if dice.random() < hung / many else _around(dice, usual))
        waits.add(_around(dice, 0.05) + 12 * late * dice.uniform(0.6, 1))
    return TaskMinute(
        minute=at,
        span_minutes=span,
        node="celery@w1" if span == 1 else "",
        task_name=name,
        queue=queue,
        succeeded=max(0, many - hung - failed),
        failed=failed,
        retried=failed // 2,
        hard_limit=hung,
        lost=int(dice.random() < 0.01),
        runtimes=runtimes.to_wire(),
        waits=waits.to_wire(),
        rss_growth_bytes=many * dice.randrange(2_000, 9_000) * (9 if bad else 1),
    )


def _around(dice: random.Random, usual: float) -> float:
    return usual * dice.lognormvariate(0, 0.5)
