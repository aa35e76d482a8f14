"""What needs somebody now, and what they can do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from unstuck import conf
from unstuck.dashboard.paging import Count, count
from unstuck.models import Node, OutboxMessage, PeriodicEntry

OVERDUE = timedelta(minutes=1)
RECENT = timedelta(hours=24)
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that is wrong."""

    what: str
    remedy: str
    link: str = ""
    since: datetime | None = None
    command: str = ""
    """What to type, where that is the remedy."""


def of_nodes(nodes: Sequence[Node]) -> Iterator[Need]:
    """Nodes that are silent, and queues that nobody consumes."""
    if not nodes:
        yield Need(
            _("No worker has been seen yet."),
            _("Start one; it appears here within ten seconds."),
            command="celery -A PROJECT worker",
        )
    yield from _all_lost(nodes)
    yield from _abandoned(nodes)
    for node in nodes:
        missing = node.facts_dropped + node.facts_left_out
        if missing and node.condition != "gone":
            yield Need(
                _("%(node)s could not store %(count)s facts.")
                % {"node": node.name, "count": missing},
                _(
                    "The database was away or too slow; numbers here are too low by that."
                ),
                _workers(),
            )


def of_outbox() -> Iterator[Need]:
    """Messages that should be on the broker and are not."""
    overdue = overdue_messages()
    if overdue.number:
        yield Need(
            ngettext(
                "%(count)s message of the outbox is overdue.",
                "%(count)s messages of the outbox are overdue.",
                overdue.number,
            )
            % {"count": f"{overdue.number}{'+' if overdue.capped else ''}"},
            _("A worker sends them. See why the broker does not take them:"),
            command="python manage.py unstuck outbox list",
        )


def of_periodic() -> Iterator[Need]:
    """Entries of beat that should have been sent."""
    late = timezone.now() - PeriodicEntry.OVERDUE_AFTER
    entries = PeriodicEntry.objects.using(conf.current().database)
    overdue = count(entries.filter(enabled=True, next_run_at__lt=late))
    if overdue.number:
        yield Need(
            ngettext(
                "%(count)s periodic entry is overdue.",
                "%(count)s periodic entries are overdue.",
                overdue.number,
            )
            % {"count": f"{overdue.number}{'+' if overdue.capped else ''}"},
            _(
                "Beat sends them. See whether one leads, and what keeps it from sending:"
            ),
            reverse("unstuck:periodic"),
        )


def overdue_messages() -> Count:
    """How many wait in the outbox for longer than is usual."""
    due = timezone.now() - OVERDUE
    return count(
        OutboxMessage.objects.using(conf.current().database).filter(due_at__lt=due)
    )


def _all_lost(nodes: Sequence[Node]) -> Iterator[Need]:
    """Those that were lost of late: of a pod that was killed last week nobody asks."""
    recent = timezone.now() - RECENT
    lost = [node for node in nodes if node.is_lost and node.seen_at > recent]
    lost.sort(key=lambda node: node.seen_at, reverse=True)
    yield from map(_lost, lost[:MOST_NAMED])
    if len(lost) > MOST_NAMED:
        yield Need(
            _("%(count)s more are lost.") % {"count": len(lost) - MOST_NAMED},
            _("Many at once: look at their hosts, or at the database."),
            _workers(),
        )


def _lost(node: Node) -> Need:
    return Need(
        _("%(node)s is lost: it did not say goodbye.") % {"node": node.name},
        _(
            "See whether its host %(host)s and its process %(pid)s are there, and reach "
            "the database. Its messages go to other workers."
        )
        % {"host": node.host or "?", "pid": node.pid or "?"},
        _incidents(node),
        node.seen_at,
    )


def _abandoned(nodes: Sequence[Node]) -> Iterator[Need]:
    """Queues whose last consumer is no more."""
    served = {
        queue
        for node in nodes
        if node.condition in {"ready", "starting"}
        for queue in node.queues
    }
    last: dict[str, Node] = {}
    for node in sorted(nodes, key=lambda node: node.seen_at):
        last.update({queue: node for queue in node.queues if queue not in served})
    for queue, node in sorted(last.items()):
        yield Need(
            _("No worker consumes the queue %(queue)s; the last was %(node)s.")
            % {"queue": queue, "node": node.name},
            _("Start a worker for it:"),
            _workers(),
            node.seen_at,
            f"celery -A PROJECT worker -Q {queue}",
        )


def _workers() -> str:
    return reverse("unstuck:workers")


def _incidents(node: Node) -> str:
    return f"{reverse('unstuck:incidents')}?{urlencode({'node': node.name})}"
