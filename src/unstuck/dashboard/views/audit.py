"""Audit: who did what, when and why."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from unstuck.dashboard.access import Viewer
from unstuck.dashboard.edit import as_json
from unstuck.dashboard.page import page, show
from unstuck.dashboard.paging import slice_of
from unstuck.dashboard.payload import without_arguments
from unstuck.dashboard.queries import archive
from unstuck.dashboard.reading import Parts
from unstuck.dashboard.text import text_in
from unstuck.dashboard.words import ACTIONS


@page("unstuck.view_auditentry")
def audit(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """What fits the URL, newest first."""
    asked = {name: text_in(request, name) for name in ("who", "what", "text")}
    found = archive.audit(who=asked["who"], what=asked["what"])
    slow = archive.quoting(asked["text"])
    part = Parts().read(lambda: slice_of(found, "at", request.GET, slow=slow))
    entries = [
        (entry, _details(entry.details, viewer))
        for entry in (part.value.rows if part.value else ())
    ]
    context = {"slice": part, "entries": entries, "asked": asked, "actions": ACTIONS}
    return show(request, viewer, "audit.html", context)


def _details(details: dict[str, Any], viewer: Viewer) -> str:
    return as_json(details if viewer.sees_payload else without_arguments(details))
