"""What is to be told is a row, so that the next leader knows what this one has told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import NAMESPACE_OID, UUID, uuid5

from django.db.models import F

from unstuck import conf
from unstuck.core.alerts import EVENTS, Target, without_secrets
from unstuck.core.backoff import doubled
from unstuck.letters.redact import clean, storable
from unstuck.models import Alert
from unstuck.recorder.alerts.finding import (
    NEW_WITHIN,
    Finding,
    Glance,
    find,
    is_known_to_be_over,
)
from unstuck.recorder.database import insert_new, writing
from unstuck.recorder.sound import short

CALM = timedelta(minutes=2)
"""What comes back within was never over."""

REPEAT = timedelta(days=1)
"""What lasts is told again so often."""

GATHER = timedelta(minutes=1)
"""After a message the next one to the same target waits for so long."""

FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(hours=1)

MOST_AT_ONCE = 1000

LEAST_DAYS, MOST_DAYS = 1, 3650
"""Rows are kept for as long as incidents are, within these."""


def look(
    targets: Sequence[Target], now: datetime, letters: str, *, sees_nodes: bool = True
) -> None:
    """Have a row for all that each target is to be told."""
    with writing() as alias:
        glance = Glance(alias=alias, now=now, letters=letters, sees_nodes=sees_nodes)
        forget(alias, targets, now)
        for target in targets:
            _look_for(glance, target)


def forget(alias: str, targets: Iterable[Target], now: datetime) -> None:
    """Delete what is old, and what nobody wants to be told any more."""
    days = conf.current().retention_days["incidents"]
    kept = timedelta(days=min(max(days, LEAST_DAYS), MOST_DAYS))
    rows = Alert.objects.using(alias)
    rows.filter(seen_at__lt=now - kept).delete()
    wanted = {target.id: target.conditions for target in targets}
    rows.exclude(target_id__in=wanted).delete()
    for target_id, conditions in wanted.items():
        rows.filter(target_id=target_id).exclude(condition__in=conditions).delete()


def _look_for(glance: Glance, target: Target) -> None:
    found: dict[UUID, tuple[str, Finding]] = {}
    for want in target.wants:
        for one in find(glance, want.condition, want.options):
            key = _key(target, want.condition, one)
            found.setdefault(key, (want.condition, one))
    _begin(glance, target, found)
    _end(glance, target)


def _key(target: Target, condition: str, finding: Finding) -> UUID:
    which = f"{finding.subject} {finding.of}" if finding.of else finding.subject
    return uuid5(NAMESPACE_OID, f"{target.id} {condition} {clean(which)}")


def _begin(
    glance: Glance, target: Target, found: Mapping[UUID, tuple[str, Finding]]
) -> None:
    """Make rows of what is new, open those of what is back, note what lasts."""
    rows = Alert.objects.using(glance.alias)
    there = {row.alert_id: row for row in rows.filter(alert_id__in=list(found))}
    new = []
    for key, (condition, finding) in found.items():
        row = there.get(key)
        if row is None:
            row = Alert(alert_id=key, target_id=target.id, condition=condition)
            row.since, row.due_at = finding.since, glance.now
            new.append(_filled(row, target, finding, glance.now))
        elif row.resolved_at is None or _is_back(row, row.resolved_at, finding):
            _go_on(row, target, finding, glance.now)
    insert_new(glance.alias, "alert_id", new)


def _is_back(row: Alert, over_at: datetime, finding: Finding) -> bool:
    """What happens once is only told again when it is another time."""
    return row.condition not in EVENTS or finding.since > over_at + NEW_WITHIN


def _go_on(row: Alert, target: Target, finding: Finding, now: datetime) -> None:
    if row.resolved_at is not None:
        row.resolved_at, row.since = None, finding.since
        if not row.attempts:  # Else its target has a break.
            row.due_at = now
    _filled(row, target, finding, now).save(
        update_fields=(
            *("what", "remedy", "facts", "target", "subject", "seen_at"),
            *("resolved_at", "since", "due_at"),
        )
    )


def _filled(row: Alert, target: Target, finding: Finding, now: datetime) -> Alert:
    row.target, row.subject = short(target.shown), short(finding.subject)
    row.what, row.remedy = clean(finding.what), clean(finding.remedy)
    row.facts, row.seen_at = storable(finding.facts), now
    return row


def _end(glance: Glance, target: Target) -> None:
    """What was not so for a while is over, unless nobody can tell just now."""
    rows = Alert.objects.using(glance.alias)
    unseen = rows.filter(
        target_id=target.id, resolved_at=None, seen_at__lt=glance.now - CALM
    ).exclude(condition__in=EVENTS)
    over = rows.filter(
        pk__in=[row.pk for row in unseen if _is_over(glance, target, row)]
    )
    # Of a target that has a break nothing is due before its end.
    over.filter(attempts=0).update(due_at=glance.now)
    over.update(resolved_at=glance.now)


def _is_over(glance: Glance, target: Target, row: Alert) -> bool:
    is_wanted = any(
        want.condition == row.condition
        and want.options.get("queue") in (None, row.subject)
        for want in target.wants
    )
    return not is_wanted or is_known_to_be_over(glance, row.condition, row.subject)


# -- telling


def due(alias: str, target: Target, now: datetime) -> list[Alert]:
    """What this target is to be told now; nothing while it is given a break."""
    own = Alert.objects.using(alias).filter(target_id=target.id)
    if own.filter(attempts__gt=0, due_at__gt=now).exists():
        return []
    if own.filter(told_at__gt=now - GATHER).exists():
        return []
    return list(own.filter(due_at__lte=now).order_by("since", "pk")[:MOST_AT_ONCE])


def told(alias: str, rows: Iterable[Alert], now: datetime) -> None:
    """The target has been told of these; what has changed meanwhile is still due."""
    keys: dict[str, list[int]] = {"event": [], "begun": [], "over": []}
    for row in rows:
        lasts = "begun" if row.resolved_at is None else "over"
        keys["event" if row.condition in EVENTS else lasts].append(row.pk)
    own = Alert.objects.using(alias)
    own.filter(pk__in=keys["event"]).update(resolved_at=now, due_at=None)
    begun = own.filter(pk__in=keys["begun"], resolved_at=None)
    begun.update(due_at=now + REPEAT)
    own.filter(pk__in=keys["over"], resolved_at__isnull=False).update(due_at=None)
    own.filter(pk__in=[key for each in keys.values() for key in each]).update(
        told_at=now, attempts=0, last_error=""
    )


def failed(alias: str, rows: Sequence[Alert], error: str, now: datetime) -> None:
    """The target could not be told: it gets a break, a longer one each time."""
    attempts = max(row.attempts for row in rows)
    wait = doubled(FIRST_WAIT, attempts, LONGEST_WAIT)
    Alert.objects.using(alias).filter(pk__in=[row.pk for row in rows]).update(
        attempts=F("attempts") + 1,
        last_error=clean(without_secrets(error)),
        due_at=now + wait,
    )
