"""Tasks: how they did, all together and one by one."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from unstuck.dashboard import charts, limits
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.queries import minutes, running, runs, samples
from unstuck.dashboard.queries.minutes import History
from unstuck.dashboard.reading import Part, Parts
from unstuck.dashboard.text import text_in
from unstuck.dashboard.window import Window
from unstuck.dashboard.words import SORTS

WINDOWS = ("24h", "1h", "7d")
IN_ORDER = ("1h", "24h", "7d")
HISTORY = "7d"
"""Of limits: long enough for what is done once a night."""


@page("unstuck.view_taskrun")
def tasks(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """All tasks of a window, by what the URL sorts by."""
    window = Window.of(request.GET, WINDOWS)
    asked = request.GET.get("sort", "")
    sort = asked if asked in minutes.SORTS else "runs"
    text = text_in(request, "task")
    context = {
        "tasks": Parts().read(lambda: minutes.tasks(window, sort, text)),
        "window": window,
        "windows": IN_ORDER,
        "sort": sort,
        "sorts": _sorts(),
        "heads": _heads(),
        "text_of_task": text,
        "most": minutes.MOST_TASKS,
    }
    return show(request, viewer, "tasks.html", context)


@page("unstuck.view_taskrun")
def task(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """One task: its history, its limits, and what went wrong of late."""
    name = text_in(request, "name")
    window = Window.of(request.GET, WINDOWS)
    parts = Parts()
    history = parts.read(lambda: minutes.history(window, name))
    context: dict[str, Any] = {
        "name": name,
        "history": history,
        **_drawn(parts, viewer, history, window),
        "window": window,
        "windows": IN_ORDER,
        "running": parts.read(lambda: running.of_task(name)),
        "runs": parts.read(lambda: runs.troubled(name)),
    }
    if viewer.may("unstuck.view_deadletter"):
        context["letters"] = parts.read(lambda: runs.letters_of(name))
    past = _past(parts, name, window, history)
    if past.value is not None and past.value.whole.rows:
        context["in_force"] = limits.in_force(name)
        context["suggestion"] = limits.suggested(past.value.whole)
    context |= {"past": past, "fewest": limits.FEWEST_RUNS}
    return show(request, viewer, "tasks_one.html", context)


def _sorts() -> list[tuple[str, str]]:
    """All that the list can be sorted by."""
    said = {"run": _("Run time"), "wait": _("Wait")}
    plain = [(kind, str(label)) for kind, label in SORTS.items()]
    return plain + [
        (f"{what}{percent}", f"{label} p{percent}")
        for what, label in said.items()
        for percent in minutes.PERCENTILES
    ]


def _heads() -> list[tuple[str, str]]:
    """Those that have a column of their own."""
    plain = [(kind, str(SORTS[kind])) for kind in ("name", "runs", "rate")]
    return plain + [
        (f"{what}{percent}", f"p{percent}")
        for what in ("run", "wait")
        for percent in minutes.PERCENTILES
    ]


def _drawn(
    parts: Parts, viewer: Viewer, history: Part[History], window: Window
) -> dict[str, Any]:
    if history.value is None or not history.value.whole.rows:
        return {}
    marks: Part[list[samples.Mark]] = Part()
    if viewer.may("unstuck.view_incident"):
        marks = parts.read(lambda: samples.releases(window))
    drawn = charts.of_runs(history.value, window, marks.value or ())
    drawn.append(charts.of_growth(history.value, window))
    shown = [chart for chart in drawn if not chart.is_empty]
    return {"charts": shown, "marks": marks.value or ()}


def _past(
    parts: Parts, name: str, window: Window, history: Part[History]
) -> Part[History]:
    if window.name == HISTORY:
        return history
    return parts.read(lambda: minutes.history(Window.named(HISTORY), name))
