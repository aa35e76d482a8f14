"""What ran: each run, and how many in which minute."""

from __future__ import annotations

from django.contrib import admin

from unstuck.admin.base import ReadOnlyAdmin, TaskFilter
from unstuck.admin.ended import HAPPENED, EndedAdmin
from unstuck.admin.words import mebibytes, minute_of, percentiles, seconds
from unstuck.models import TaskMinute, TaskRun


@admin.register(TaskRun)
class TaskRunAdmin(EndedAdmin):
    """Each run that did not simply succeed; with ``RECORD_SUCCESSES`` any run."""

    list_display = ("task", "ending", "verdict", "happened", "runtime", "ended")
    list_filter = ("ending", "swallowed_soft_limit", "ended_at", TaskFilter)
    date_hierarchy = "ended_at"
    large = ("traceback", "stack", "soft_stack", "waiting_for")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "task",
                    "task_id",
                    "queue",
                    "ending",
                    "verdict",
                    "reason",
                    "cause",
                )
            },
        ),
        (
            "What happened",
            {
                "fields": (
                    *HAPPENED,
                    "swallowed_soft_limit",
                    "shown_waiting_for",
                )
            },
        ),
        (
            "When and where",
            {
                "fields": (
                    "started_at",
                    "ended_at",
                    "waited",
                    "runtime",
                    "cpu_seconds",
                    "memory",
                    "memory_growth",
                    "attempt",
                    "deliveries",
                    "node",
                    "pid",
                    "child_age_seconds",
                    "fingerprint",
                    "run_id",
                )
            },
        ),
    )

    @admin.display(description="runtime", ordering="runtime_seconds")
    def runtime(self, run: TaskRun) -> str:
        return seconds(run.runtime_seconds)

    @admin.display(description="waited", ordering="waited_seconds")
    def waited(self, run: TaskRun) -> str:
        """From when it could have run to when it did."""
        return seconds(run.waited_seconds)

    @admin.display(description="ended", ordering="ended_at")
    def ended(self, run: TaskRun) -> str:
        """When, short enough for a column."""
        return minute_of(run.ended_at)

    @admin.display(description="memory growth")
    def memory_growth(self, run: TaskRun) -> str:
        return mebibytes(run.rss_growth_bytes)


@admin.register(TaskMinute)
class TaskMinuteAdmin(ReadOnlyAdmin):
    """How often which task ended how, minute by minute."""

    list_display = (
        "minute",
        "task_name",
        "queue",
        "node",
        "succeeded",
        "failed",
        "retried",
        "soft_limit",
        "hard_limit",
        "lost",
        "other",
        "swallowed",
        "mean",
        "longest",
        "memory_growth",
    )
    list_filter = ("minute", TaskFilter)
    date_hierarchy = "minute"
    search_fields = ("task_name", "queue", "node")
    large = ("runtimes", "waits")
    fields = (*list_display, "span_minutes", "took", "waited", "waits_unknown")

    @admin.display(description="mean runtime")
    def mean(self, minute: TaskMinute) -> str:
        return seconds(minute.runtime_seconds / minute.runs if minute.runs else None)

    @admin.display(description="runtime: p50, p95, p99")
    def took(self, minute: TaskMinute) -> str:
        return percentiles(minute.runtimes)

    @admin.display(description="wait: p50, p95, p99")
    def waited(self, minute: TaskMinute) -> str:
        return percentiles(minute.waits)

    @admin.display(description="longest runtime", ordering="runtime_max")
    def longest(self, minute: TaskMinute) -> str:
        return seconds(minute.runtime_max)

    @admin.display(description="memory growth", ordering="rss_growth_bytes")
    def memory_growth(self, minute: TaskMinute) -> str:
        return mebibytes(minute.rss_growth_bytes)
