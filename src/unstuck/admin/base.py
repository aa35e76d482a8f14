"""What all pages of the admin have in common: to look, and to see what one may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest

from unstuck import conf
from unstuck.dashboard.access import PAYLOAD

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


def sees_payload(request: HttpRequest) -> bool:
    """Whether this user may see the arguments of tasks."""
    return request.user.has_perm(PAYLOAD)
