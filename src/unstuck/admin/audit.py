"""Who did what."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from unstuck.admin.base import ReadOnlyAdmin
from unstuck.admin.words import block_of
from unstuck.dashboard.payload import without_arguments
from unstuck.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who did what, when and why."""

    list_display = ("at", "who", "what", "target", "why")
    list_filter = ("what", "at")
    date_hierarchy = "at"
    search_fields = ("who", "target", "why")
    fields = ("at", "who", "what", "target", "why", "shown_details")
    instead = {"shown_details": "details_in_short"}

    @admin.display(description="details")
    def shown_details(self, entry: AuditEntry) -> SafeString | str:
        """What was done, in full."""
        return block_of(entry.details)

    @admin.display(description="details")
    def details_in_short(self, entry: AuditEntry) -> SafeString | str:
        return block_of(without_arguments(entry.details))
