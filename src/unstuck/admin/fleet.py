"""The nodes, their queues, what happened to them, and who is told."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from unstuck.admin.base import ReadOnlyAdmin
from unstuck.admin.words import block, block_of
from unstuck.models import Alert, Incident, Node, QueueSample


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Which workers there are, and how they are."""

    list_display = (
        "name",
        "condition",
        "seen_at",
        "started_at",
        "concurrency",
        "shown_queues",
        "facts_dropped",
        "facts_left_out",
    )
    list_filter = ("state", "seen_at")
    search_fields = ("name", "host")
    fields = (
        "name",
        "condition",
        "host",
        "pid",
        "started_at",
        "seen_at",
        "pool",
        "concurrency",
        "shown_queues",
        "broker",
        "unstuck_version",
        "celery_version",
        "python_version",
        "release",
        "facts_lag_seconds",
        "facts_dropped",
        "facts_left_out",
        "chores_failed",
    )

    @admin.display(description="state", ordering="state")
    def condition(self, node: Node) -> str:
        return node.condition

    @admin.display(description="queues")
    def shown_queues(self, node: Node) -> str:
        return ", ".join(node.queues)


@admin.register(QueueSample)
class QueueSampleAdmin(ReadOnlyAdmin):
    """What there was of each queue, again and again."""

    list_display = (
        "at",
        "queue",
        "waiting",
        "oldest_seconds",
        "reserved",
        "delayed",
        "consumers",
    )
    list_filter = ("at",)
    date_hierarchy = "at"
    search_fields = ("queue",)
    fields = list_display


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin):
    """What happened to the nodes."""

    list_display = ("at", "kind", "what", "node", "process")
    list_filter = ("kind", "process", "at")
    date_hierarchy = "at"
    search_fields = ("what", "node")
    large = ("stack", "waiting_for", "details")
    fields = (
        "at",
        "kind",
        "what",
        "node",
        "process",
        "pid",
        "resolved_at",
        "shown_stack",
        "shown_waiting_for",
        "shown_details",
        "incident_id",
    )

    @admin.display(description="stack")
    def shown_stack(self, incident: Incident) -> SafeString | str:
        return block(incident.stack)

    @admin.display(description="waiting for")
    def shown_waiting_for(self, incident: Incident) -> SafeString | str:
        return block(incident.waiting_for)

    @admin.display(description="details")
    def shown_details(self, incident: Incident) -> SafeString | str:
        return block_of(incident.details)


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    """What somebody is to be told, and what became of telling."""

    list_display = (
        "condition",
        "subject",
        "target",
        "since",
        "resolved_at",
        "told_at",
        "attempts",
    )
    list_filter = ("condition", "target", "since")
    date_hierarchy = "since"
    search_fields = ("subject", "what", "target")
    large = ("remedy", "facts", "last_error")
    fields = (
        "condition",
        "subject",
        "what",
        "remedy",
        "shown_facts",
        "target",
        "since",
        "seen_at",
        "resolved_at",
        "told_at",
        "due_at",
        "attempts",
        "last_error",
        "alert_id",
    )

    @admin.display(description="facts")
    def shown_facts(self, alert: Alert) -> SafeString | str:
        """What it is about, in full."""
        return block_of(alert.facts)
