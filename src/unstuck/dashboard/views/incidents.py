"""Incidents: what happened to nodes."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from unstuck.dashboard.access import Viewer
from unstuck.dashboard.edit import as_json
from unstuck.dashboard.page import page, show
from unstuck.dashboard.paging import slice_of
from unstuck.dashboard.queries import archive
from unstuck.dashboard.reading import Parts, reading
from unstuck.dashboard.text import text_in

LARGE = ("stack", "waiting_for", "details")


@page("unstuck.view_incident")
def incidents(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Those of a kind and a node, newest first."""
    asked = {name: text_in(request, name) for name in ("kind", "node")}
    found = archive.incidents(**asked).defer(*LARGE)
    rows = Parts().read(lambda: slice_of(found, "at", request.GET))
    return show(request, viewer, "incidents.html", {"slice": rows, "asked": asked})


@page("unstuck.view_incident")
def incident(request: HttpRequest, viewer: Viewer, pk: int) -> HttpResponse:
    """One, with the stack of the process that it is about."""
    with reading():
        found = archive.incidents().filter(pk=pk).first() if pk < 2**63 else None
    if found is None:
        raise Http404(_("There is no incident %(row)s.") % {"row": pk})
    context = {"incident": found, "details": as_json(found.details)}
    return show(request, viewer, "incident.html", context)
