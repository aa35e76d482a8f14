"""Nodes, entries of beat, incidents and the audit."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from unstuck import conf
from unstuck.models import AuditEntry, Incident, Node, PeriodicEntry

MOST_NODES = 500
MOST_ENTRIES = 1000


def nodes() -> list[Node]:
    """The nodes that were seen last, those in trouble first."""
    newest = Node.objects.using(conf.current().database).order_by("-seen_at")
    order = {"lost": 0, "stopping": 1, "starting": 2, "ready": 3, "gone": 4}
    found = list(newest.defer("running")[:MOST_NODES])
    return sorted(found, key=lambda node: (order.get(node.condition, 0), node.name))


def periodic() -> list[PeriodicEntry]:
    """What beat sends, what is overdue first, what is disabled last."""
    entries = PeriodicEntry.objects.using(conf.current().database)
    found = list(entries.order_by("-enabled", "next_run_at")[:MOST_ENTRIES])
    return sorted(
        found, key=lambda entry: (not entry.enabled, -entry.overdue_seconds, entry.name)
    )


def incidents(*, kind: str = "", node: str = "") -> QuerySet[Incident]:
    """What happened to nodes."""
    found = Incident.objects.using(conf.current().database)
    if kind:
        found = found.filter(kind=kind)
    if node:
        found = found.filter(node=node)
    return found.all()


def audit(*, who: str = "", what: str = "") -> QuerySet[AuditEntry]:
    """Who did what."""
    found = AuditEntry.objects.using(conf.current().database)
    if who:
        found = found.filter(who=who)
    if what:
        found = found.filter(what=what)
    return found.all()


def quoting(text: str) -> Q:
    """Entries with this text in their target or their reason."""
    return Q(target__icontains=text) | Q(why__icontains=text) if text else Q()
