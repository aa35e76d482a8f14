"""How a task ended: what pages of letters and of runs have in common."""

from __future__ import annotations

from collections.abc import Mapping

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from unstuck.admin.base import ReadOnlyAdmin, sees_payload
from unstuck.admin.words import block, exception_of, mebibytes, short, together
from unstuck.dashboard.frames import HIDDEN, without_messages
from unstuck.models import DeadLetter, TaskRun

HAPPENED = (
    "shown_exception",
    "shown_traceback",
    "shown_stack",
    "shown_soft_stack",
)
"""What a page shows of it first."""


class EndedAdmin(ReadOnlyAdmin):
    """What letters and runs have in common: how a task ended."""

    search_fields = ("task_id", "task_name", "exception_type", "exception_message")
    instead: Mapping[str, str] = {
        "happened": "happened_in_short",
        "shown_exception": "exception_in_short",
        "shown_traceback": "traceback_in_short",
    }

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """What was found would tell what exceptions say."""
        fields = super().get_search_fields(request)
        seen = sees_payload(request)
        return [name for name in fields if seen or name != "exception_message"]

    @admin.display(description="task", ordering="task_name")
    def task(self, ended: DeadLetter | TaskRun) -> str:
        return ended.task_name or "(unknown)"

    @admin.display(description="what happened")
    def happened(self, ended: DeadLetter | TaskRun) -> str:
        return short(ended.cause or exception_of(ended))

    @admin.display(description="what happened")
    def happened_in_short(self, ended: DeadLetter | TaskRun) -> str:
        return short(ended.cause or ended.exception_type)

    @admin.display(description="exception")
    def shown_exception(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        return block(exception_of(ended))

    @admin.display(description="exception")
    def exception_in_short(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        says = HIDDEN if ended.exception_message else ""
        return block(together(ended.exception_type, says))

    @admin.display(description="traceback")
    def shown_traceback(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        return block(ended.traceback)

    @admin.display(description="traceback")
    def traceback_in_short(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        return block(without_messages(ended.traceback))

    @admin.display(description="stack")
    def shown_stack(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        return block(ended.stack)

    @admin.display(description="stack at the soft limit")
    def shown_soft_stack(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        return block(ended.soft_stack)

    @admin.display(description="waiting for")
    def shown_waiting_for(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        return block(ended.waiting_for)

    @admin.display(description="memory")
    def memory(self, ended: DeadLetter | TaskRun) -> str:
        return mebibytes(ended.rss_bytes)
