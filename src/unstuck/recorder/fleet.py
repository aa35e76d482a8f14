"""What nobody can say of himself: a node is lost, letters wait, a release has come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import NAMESPACE_OID, uuid5

from django.db.models import Min, QuerySet

from unstuck.models import Incident, Node, QueueSample
from unstuck.recorder.database import insert_new, writing

LETTERS_PATIENCE = timedelta(minutes=10)
"""So long letters may wait on the broker to be archived."""

SURE_AFTER = LETTERS_PATIENCE - timedelta(minutes=1)


def look_at_nodes(now: datetime) -> None:
    """An incident for each node that is lost, resolved when it is back or forgotten.

    Whoever asks must have written to the database for a while: after an outage of it
    nobody has been seen.
    """
    with writing() as alias:
        nodes = Node.objects.using(alias).filter(seen_at__lt=now - Node.LOST_AFTER)
        lost = {node.name: node for node in nodes.exclude(state="gone")}
        new = {
            name: _incident(
                "node_lost",
                now,
                f"{name} was last seen at {node.seen_at:%Y-%m-%d %H:%M:%S} UTC and did "
                f"not say goodbye: it was killed, its host is gone, or its recorder "
                f"does not reach the database. Its messages are given to other nodes.",
                node=name,
                of=str(node.seen_at),
                details={"host": node.host, "pid": node.pid, "state": node.state},
            )
            for name, node in lost.items()
        }
        _keep_open(alias, "node_lost", new, now)


def look_at_letters(now: datetime, queue: str) -> None:
    """An incident while letters wait on the broker for long and nobody archives them."""
    with writing() as alias:
        recent = QueueSample.objects.using(alias).filter(
            queue=queue, at__gt=now - LETTERS_PATIENCE
        )
        found = recent.aggregate(Min("at"), Min("waiting"))
        first, least = found["at__min"], found["waiting__min"]
        if first is None:
            return  # Nobody has looked.
        new = {}
        if least and first <= now - SURE_AFTER:
            new[""] = _incident(
                "letters_waiting",
                now,
                f"At least {least} letters have waited in {queue} for "
                f"{LETTERS_PATIENCE.seconds // 60} minutes. The log of the recorders "
                f"says what the database has against them.",
                of=str(first),
                details={"queue": queue, "waiting": least},
            )
        elif least:
            return  # Too early to tell.
        _keep_open(alias, "letters_waiting", new, now)


def look_at_releases() -> None:
    """An incident when the node that started last is of another release than before."""
    with writing() as alias:
        named = Node.objects.using(alias).exclude(release="")
        newest = named.order_by("-started_at").first()
        if newest is None:
            return
        last = last_release(alias).first()
        before = last.details.get("release") if last else None
        if before == newest.release or (last and last.at >= newest.started_at):
            return
        incident = _incident(
            "release",
            newest.started_at,
            f"Release {newest.release} has come: {newest.name} is of it.",
            node=newest.name,
            of=str(newest.started_at),
            details={"release": newest.release, "before": before},
        )
        insert_new(alias, "incident_id", [incident])


def last_release(alias: str) -> QuerySet[Incident]:
    """The mark of the release that there is now, if any."""
    marks = Incident.objects.using(alias).filter(kind="release")
    return marks.order_by("-at", "-pk")[:1]


def _keep_open(
    alias: str, kind: str, current: Mapping[str, Incident], now: datetime
) -> None:
    """Have those be open, by their node, that there is reason for now."""
    lasting = Incident.objects.using(alias).filter(kind=kind, resolved_at=None)
    there = set(lasting.values_list("node", flat=True))
    new = [incident for node, incident in current.items() if node not in there]
    insert_new(alias, "incident_id", new)
    lasting.filter(node__in=there - set(current)).update(resolved_at=now)


def _incident(
    kind: str,
    at: datetime,
    what: str,
    *,
    of: str,
    node: str = "",
    details: Mapping[str, object],
) -> Incident:
    """``of``: what makes it another one than the one before, whoever sees it."""
    return Incident(
        incident_id=uuid5(NAMESPACE_OID, f"{kind} {node} {of}"),
        kind=kind,
        at=at,
        node=node,
        process="recorder",
        what=what,
        details=dict(details),
    )
