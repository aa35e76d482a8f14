"""What waits to be sent."""

from __future__ import annotations

from django.contrib import admin

from unstuck.admin.base import ReadOnlyAdmin, TaskFilter
from unstuck.models import OutboxMessage


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """What waits to be sent."""

    list_display = ("task_name", "queue", "written_at", "attempts", "last_error")
    list_filter = ("written_at", TaskFilter)
    search_fields = ("task_id", "task_name", "last_error")
    large = ("body", "envelope")
    fields = (
        "task_name",
        "task_id",
        "queue",
        "written_at",
        "due_at",
        "attempts",
        "last_error",
    )
