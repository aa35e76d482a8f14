"""Dead letters: the list, and the groups of the same trouble."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from unstuck.core.verdict import Reason
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.filters import SPANS, Filters
from unstuck.dashboard.page import page, show
from unstuck.dashboard.paging import count_read, slice_of
from unstuck.dashboard.queries import letters as read
from unstuck.dashboard.reading import Parts
from unstuck.dashboard.words import REASONS

AT = "buried_at"


@page("unstuck.view_deadletter")
def letters(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Those that fit the URL, newest first."""
    filters = Filters.of(request.GET, sees_payload=viewer.sees_payload)
    found, slow = filters.split(sees_payload=viewer.sees_payload)
    rows = read.listed(found, messages=viewer.sees_payload)
    parts = Parts()
    context = {
        "slice": parts.read(lambda: slice_of(rows, AT, request.GET, slow=slow)),
        "count": parts.read(lambda: count_read(found, AT, slow)),
    }
    return _show(request, viewer, "letters.html", filters, context)


@page("unstuck.view_deadletter")
def groups(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The same by what went wrong, the most frequent first."""
    filters = Filters.of(request.GET, sees_payload=viewer.sees_payload)
    found, slow = filters.split(sees_payload=viewer.sees_payload)
    context = {"groups": Parts().read(lambda: read.groups(found, slow=slow))}
    return _show(request, viewer, "groups.html", filters, context)


def _show(
    request: HttpRequest,
    viewer: Viewer,
    template: str,
    filters: Filters,
    context: dict[str, Any],
) -> HttpResponse:
    around = {
        "filters": filters,
        "reasons": [(reason.value, REASONS[reason]) for reason in Reason],
        "spans": tuple(SPANS),
    }
    return show(request, viewer, template, {**around, **context})
