"""What people do with alerts: look which there are, and try each target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unstuck import conf
from unstuck.models import Alert
from unstuck.recorder.alerts.message import trial
from unstuck.recorder.alerts.teller import Call


def alerts() -> list[Alert]:
    """All that is kept of those for the targets that there are now."""
    now_told = [target.id for target in conf.current().alerts]
    rows = Alert.objects.using(conf.current().database)
    return list(rows.filter(target_id__in=now_told)) if now_told else []


def unreached(rows: Sequence[Alert]) -> Iterator[tuple[str, int, str]]:
    """Each target that could not be told, how often in a row, and the last error."""
    worst: dict[str, Alert] = {}
    for row in rows:
        if row.attempts > getattr(worst.get(row.target_id), "attempts", 0):
            worst[row.target_id] = row
    for row in worst.values():
        yield row.target, row.attempts, row.last_error


def try_targets() -> list[tuple[str, str]]:
    """Send a trial message to all targets at once: each with its error, if any."""
    calls = [Call(target, trial()) for target in conf.current().alerts]
    return [(call.target.shown, call.wait()) for call in calls]
