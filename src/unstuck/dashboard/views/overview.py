"""The first page: what needs somebody now, and the rest at a glance."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from unstuck.dashboard import charts
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.queries import archive, attention, minutes, samples
from unstuck.dashboard.queries import letters as read
from unstuck.dashboard.reading import Part, Parts
from unstuck.dashboard.window import Window
from unstuck.selection import letters as all_letters

MOST_INCIDENTS = 5
MOST_GROUPS = 5
WINDOWS = ("1h", "24h")


@page()
def overview(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Each part for those who may see it, and apart from the others."""
    parts = Parts()
    context: dict[str, Part[Any]] = {}
    needs: list[attention.Need] = []
    asked: list[Part[Any]] = []
    if viewer.may("unstuck.view_node"):
        nodes = context["nodes"] = parts.read(archive.nodes)
        entries = parts.read(lambda: list(attention.of_periodic()))
        asked += (nodes, entries)
        needs += () if nodes.value is None else attention.of_nodes(nodes.value)
        needs += entries.value or ()
    if viewer.may("unstuck.view_taskrun"):
        outbox = parts.read(lambda: list(attention.of_outbox()))
        asked.append(outbox)
        needs += outbox.value or ()
    unread = any(part.value is None for part in asked)
    if viewer.may("unstuck.view_deadletter"):
        waiting = all_letters().filter(replayed_at__isnull=True)
        context["reasons"] = parts.read(lambda: read.by_reason(waiting))
        context["groups"] = parts.read(lambda: read.groups(waiting, MOST_GROUPS))
    if viewer.may("unstuck.view_incident"):
        context["incidents"] = parts.read(
            lambda: list(archive.incidents().only(*INCIDENT)[:MOST_INCIDENTS])
        )
    around = {"needs": needs, "unread": unread}
    drawn = _drawn(parts, viewer, Window.of(request.GET, WINDOWS))
    return show(request, viewer, "overview.html", {**context, **around, **drawn})


INCIDENT = ("at", "kind", "node", "process", "what")


def _drawn(parts: Parts, viewer: Viewer, window: Window) -> dict[str, Any]:
    """The charts. They come last: they are what takes long where there is much."""
    nothing: Part[Any] = Part()
    runs = queues = marks = nothing
    if viewer.may("unstuck.view_incident"):
        marks = parts.read(lambda: samples.releases(window))
    if viewer.may("unstuck.view_node"):
        queues = parts.read(lambda: samples.queues(window))
    if viewer.may("unstuck.view_taskrun"):
        runs = parts.read(lambda: minutes.history(window))
    drawn: list[charts.Chart] = []
    if runs.value is not None:
        drawn += charts.of_runs(runs.value, window, marks.value or ())
    if queues.value is not None:
        drawn += charts.of_queues(queues.value, window, marks.value or ())
    return {
        "charts": [chart for chart in drawn if not chart.is_empty],
        "charts_unread": next((part for part in (runs, queues) if part.problem), None),
        "every": runs.value.every if runs.value else 1,
        "marks": marks.value or (),
        "window": window,
        "windows": WINDOWS,
    }
