"""Minutes, samples and releases for tests of charts."""

from __future__ import annotations

import html
import json
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.utils import timezone

from unstuck.core.histogram import Histogram
from unstuck.models import Incident, QueueSample, TaskMinute

TASK = "shop.send"


def took(*seconds: float) -> str:
    """A histogram of these."""
    histogram = Histogram()
    for each in seconds:
        histogram.add(each)
    return histogram.to_wire()


def minute(name: str = TASK, ago: int = 0, **known: Any) -> TaskMinute:
    """A minute of a task, so many minutes ago; not stored yet."""
    at = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=ago)
    node = known.pop("node", "one@host")
    return TaskMinute(minute=at, task_name=name, queue="work", node=node, **known)


def store(*rows: TaskMinute) -> None:
    """Write them."""
    TaskMinute.objects.bulk_create(rows)


def charts(page: str) -> dict[str, Any]:
    """What the script is given, by the title of the chart."""
    found = re.findall(r'aria-label="([^"]*)" data-chart="([^"]*)"', page)
    return {title: json.loads(html.unescape(data)) for title, data in found}


def release(name: str) -> None:
    """A deploy just now."""
    Incident.objects.create(
        incident_id=uuid4(),
        kind="release",
        at=timezone.now(),
        details={"release": name},
    )


def sample(queue: str, waiting: int | None, oldest: float | None) -> None:
    """A queue, three minutes ago."""
    at = timezone.now() - timedelta(minutes=3)
    QueueSample.objects.create(
        queue=queue, at=at, waiting=waiting, oldest_seconds=oldest
    )
