"""Samples of the queues: how deep, how old, in whose hands, again and again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from django.db.models import Max

from unstuck import conf, queues
from unstuck.core.clock import system_clock
from unstuck.fields import Fields
from unstuck.models import Alert, Node, QueueSample
from unstuck.queues import QueueFacts
from unstuck.recorder.alerts.finding import OF_QUEUES, QUEUE_KNOWN_FOR
from unstuck.recorder.database import writing
from unstuck.recorder.sound import number, short

logger = logging.getLogger(__name__)

EVERY_SECONDS = 15.0
COUNT_SECONDS = 10.0
"""So long the broker is asked at most; queues that are left are the first of the next time."""

MOST_QUEUES = 500

KEPT: Sequence[tuple[timedelta, int]] = (
    (timedelta(days=1), 60),
    (timedelta(days=7), 900),
)
"""From which age on how many seconds keep one sample."""

DELETED_AT_ONCE = 500


class Samples:
    """Counts in one turn and stores in the next, as either may take its time."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._counted: tuple[datetime, list[QueueFacts]] | None = None
        self._last: set[str] = set()
        self._left_out = 0

    def take(self) -> bool:
        """Count all queues of the fleet, or store what was counted; whether that is due.

        Raises what the broker or the database raises; what was counted is then dropped.
        """
        if self._counted is None:
            names = _names(self._app)
            self._tell_of_those_left_out(len(names[MOST_QUEUES:]))
            # Those that there was no time for come first.
            turn = sorted(names[:MOST_QUEUES], key=self._last.__contains__)
            found = queues.count(self._app, turn, within=COUNT_SECONDS)
            self._last = {facts.name for facts in found}
            self._counted = (system_clock(), found)
            return True
        (at, found), self._counted = self._counted, None
        store(at, found)
        return False

    def _tell_of_those_left_out(self, number: int) -> None:
        if number and not self._left_out:
            logger.warning(
                "There are too many queues to count them all; the others have no depth "
                "and no alerts: %(fields)s",
                Fields(counted=MOST_QUEUES, left_out=number),
            )
        self._left_out = number


def _names(app: Any) -> list[str]:
    """Ours and that of the dead letters, those that an alert is of, those that any node
    consumes, and those that one did: their messages wait when it has died."""
    now = system_clock()
    targets = [target.id for target in conf.current().alerts]
    with writing() as alias:
        nodes = Node.objects.using(alias).filter(seen_at__gt=now - QUEUE_KNOWN_FOR)
        seen = list(nodes.values_list("seen_at", "queues"))
        alerts = Alert.objects.using(alias).filter(
            target_id__in=targets, condition__in=OF_QUEUES, resolved_at=None
        )
        told = list(alerts.values_list("subject", flat=True))
    here = [names for at, names in seen if at > now - Node.LOST_AFTER]
    before = [names for _, names in seen]
    found = [sorted(told), *(sorted(chain(*each)) for each in (here, before))]
    return list(dict.fromkeys(chain(queues.names_of(app), *found)))


def store(at: datetime, found: Sequence[QueueFacts]) -> None:
    """Write a sample of each queue."""
    with writing() as alias:
        samples = QueueSample.objects.using(alias)
        last = samples.filter(at__lt=at).aggregate(Max("at"))["at__max"]
        grain = max((each for _, each in KEPT if _is_first(at, last, each)), default=0)
        samples.bulk_create([_sample(at, facts, grain) for facts in found])


def _is_first(at: datetime, last: datetime | None, seconds: int) -> bool:
    """Whether no other sample is of the same so many seconds."""
    return last is None or at.timestamp() // seconds != last.timestamp() // seconds


def _sample(at: datetime, facts: QueueFacts, grain: int) -> QueueSample:
    reserved = facts.reserved
    return QueueSample(
        queue=short(facts.name),
        at=at,
        waiting=facts.waiting,
        oldest_seconds=number(facts.oldest_seconds),
        reserved=None if reserved is None else sum(reserved.values()),
        delayed=facts.delayed,
        consumers=facts.consumers,
        grain_seconds=grain,
    )


def thin(now: datetime) -> bool:
    """Delete some of the samples that are too many for their age; whether there are more.

    As each says of how many seconds it is the first, no other need be looked at.
    """
    with writing() as alias:
        samples = QueueSample.objects.using(alias).order_by()
        for age, seconds in KEPT:
            old = samples.filter(grain_seconds__lt=seconds, at__lt=now - age)
            batch = list(old.values_list("pk", flat=True)[:DELETED_AT_ONCE])
            if batch:
                samples.filter(pk__in=batch).delete()
                return True
    return False
