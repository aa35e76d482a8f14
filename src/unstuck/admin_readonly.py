"""What happened, in Django's admin: runs, minutes, incidents, nodes and the audit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from unstuck import conf
from unstuck.core.histogram import Histogram
from unstuck.dashboard.access import PAYLOAD
from unstuck.dashboard.frames import HIDDEN, without_messages
from unstuck.dashboard.payload import without_arguments
from unstuck.models import (
    Alert,
    AuditEntry,
    DeadLetter,
    Incident,
    Node,
    OutboxMessage,
    QueueSample,
    TaskMinute,
    TaskRun,
)

STYLE = {"all": ["unstuck/admin.css"]}

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(ModelAdmin):
    """Rows that nobody edits by hand, in the database that the project chose."""

    show_full_result_count = False
    list_per_page = 50
    large: tuple[str, ...] = ()
    """Columns that the list does not read."""
    instead: Mapping[str, str] = {}
    """What may quote arguments, and what those see instead who may not see these."""

    class Media:
        css = STYLE

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request).using(conf.current().database)
        match = request.resolver_match
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        listing = match is not None and match.url_name == name
        return rows.defer(*self.large) if listing else rows

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Only the filters that the page offers.

        By any other, the number of rows would tell what is in columns that not everybody
        may see.
        """
        offered = [getattr(f, "parameter_name", f) for f in self.list_filter]
        return lookup.split(LOOKUP_SEP)[0] in [*offered, self.date_hierarchy]

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return self._seen_by(request, super().get_list_display(request))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [
            (title, {**options, "fields": self._seen_by(request, options["fields"])})
            for title, options in super().get_fieldsets(request, obj)
        ]

    def _seen_by(self, request: HttpRequest, names: Iterable[Any]) -> tuple[str, ...]:
        if sees_payload(request):
            return tuple(names)
        # Several may have the same instead.
        return tuple(dict.fromkeys(self.instead.get(name, name) for name in names))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TaskFilter(admin.SimpleListFilter):
    """The names of tasks that have rows, as many as a page can show."""

    title = "task"
    parameter_name = "task"
    most = 100

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = model_admin.get_queryset(request).order_by("task_name")
        names = rows.values_list("task_name").distinct()
        return [(name, name or "-") for (name,) in names[: self.most]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = self.value()
        return queryset if name is None else queryset.filter(task_name=name)


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
        return _short(ended.cause or _exception_of(ended))

    @admin.display(description="what happened")
    def happened_in_short(self, ended: DeadLetter | TaskRun) -> str:
        return _short(ended.cause or ended.exception_type)

    @admin.display(description="exception")
    def shown_exception(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        return block(_exception_of(ended))

    @admin.display(description="exception")
    def exception_in_short(self, ended: DeadLetter | TaskRun) -> SafeString | str:
        says = HIDDEN if ended.exception_message else ""
        return block(_together(ended.exception_type, says))

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
                    "shown_exception",
                    "shown_traceback",
                    "shown_stack",
                    "shown_soft_stack",
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
        return date_format(localtime(run.ended_at), "Y-m-d H:i")

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
        return block(readable(incident.details))


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
        return block(readable(entry.details))

    @admin.display(description="details")
    def details_in_short(self, entry: AuditEntry) -> SafeString | str:
        return block(readable(without_arguments(entry.details)))


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
        return block(readable(alert.facts))


def sees_payload(request: HttpRequest) -> bool:
    """Whether this user may see the arguments of tasks."""
    return request.user.has_perm(PAYLOAD)


def block(text: str) -> SafeString | str:
    """Text of several lines as it is, escaped."""
    if not text:
        return "-"
    return format_html('<pre class="unstuck-block">{}</pre>', text)


def readable(value: Any) -> str:
    """JSON for people."""
    if value is None:
        return "could not be read"
    return json.dumps(value, indent=2, ensure_ascii=False)


def mebibytes(size: int | None) -> str:
    """An amount of memory for people."""
    return f"{size / 2**20:.0f} MiB" if size else "-"


def percentiles(text: str) -> str:
    """Of a histogram, for people."""
    histogram = Histogram.of([text])
    return ", ".join(seconds(histogram.percentile(part)) for part in (50, 95, 99))


def seconds(duration: float | None) -> str:
    """A duration for people."""
    return "-" if duration is None else f"{duration:.3g} s"


def _exception_of(ended: DeadLetter | TaskRun) -> str:
    """What was raised, on one line; empty when nothing was."""
    return _together(ended.exception_type, ended.exception_message)


def _together(exception_type: str, says: str) -> str:
    return ": ".join(part for part in (exception_type, says) if part)


def _short(text: str) -> str:
    return Truncator(text or "-").chars(80)
