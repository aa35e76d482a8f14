"""The table of chores of a fleet."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.letters.queue import name_for
from unstuck.models import Node
from unstuck.recorder import fleet, samples, spans
from unstuck.recorder.alerts import rows as alerts
from unstuck.recorder.alerts.teller import Teller
from unstuck.recorder.chores import Chore, Leader
from unstuck.recorder.retention import prune_batch
from unstuck.recorder.samples import Samples

LOOK_SECONDS = 10.0
ALERTS_SECONDS = 15.0
TELL_SECONDS = 2.0
HOUR_SECONDS, MINUTE_SECONDS = 3_600.0, 60.0
FIRST_SECONDS = 60.0
"""What is done now and then is first done so long after its leader has come."""


def leader_of(
    app: Any, node: str, monotonic: Callable[[], float] = time.monotonic
) -> Leader:
    """A recorder's candidate for doing all of them; ``node`` is how others know it."""

    targets = conf.current().alerts

    def sees_nodes() -> bool:
        # After an outage of the database nobody has been seen for a while.
        return leader.led_seconds >= Node.LOST_AFTER.total_seconds()

    def look() -> bool:
        now = system_clock()
        if sees_nodes():
            fleet.look_at_nodes(now)
        fleet.look_at_letters(now, name_for(app))
        fleet.look_at_releases()
        return False

    def look_for_alerts() -> bool:
        now, letters = system_clock(), name_for(app)
        alerts.look(targets, now, letters, sees_nodes=sees_nodes())
        return False

    telling = [
        Chore("alerts", every=ALERTS_SECONDS, work=look_for_alerts),
        Chore("telling alerts", every=TELL_SECONDS, work=Teller(targets).work),
    ]
    leader = Leader(
        node,
        [
            Chore("queue samples", every=samples.EVERY_SECONDS, work=Samples(app).take),
            Chore("nodes, letters, releases", every=LOOK_SECONDS, work=look),
            *(telling if targets else ()),
            _now_and_then("retention", HOUR_SECONDS, prune_batch),
            _now_and_then("old samples", HOUR_SECONDS, samples.thin),
            _now_and_then("minutes added up", MINUTE_SECONDS, spans.add_up),
        ],
        monotonic,
    )
    return leader


def _now_and_then(
    name: str, every: float, part: Callable[[datetime], int | bool]
) -> Chore:
    return Chore(
        name,
        every=every,
        first_after=FIRST_SECONDS,
        work=lambda: bool(part(system_clock())),
    )
