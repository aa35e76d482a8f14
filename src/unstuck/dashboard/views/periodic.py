"""Periodic: what beat sends, when, and which beat leads."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from unstuck.beat.leadership import NAME
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.queries import archive
from unstuck.dashboard.reading import Part, Parts
from unstuck.dashboard.views.locks import held_now
from unstuck.locks.backend import Owner


@page("unstuck.view_node")
def periodic(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """All entries, those that are overdue first."""
    entries = Parts().read(archive.periodic)
    leaders = _leaders()
    rows = entries.value or ()
    context = {
        "entries": entries,
        "leaders": leaders,
        "overdue": sum(1 for entry in rows if entry.overdue_seconds),
        "enabled": sum(entry.enabled for entry in rows),
        "most": archive.MOST_ENTRIES,
    }
    return show(request, viewer, "periodic.html", context)


def _leaders() -> Part[list[Owner]]:
    locks = held_now()
    if locks.problem:
        return Part(problem=locks.problem)
    held = locks.value or ()
    return Part([one.owner for one in held if one.name.startswith(NAME)])
