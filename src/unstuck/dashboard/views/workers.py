"""Workers: which nodes there are, and how they are."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from unstuck.dashboard.access import Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.queries import archive
from unstuck.dashboard.reading import Parts


@page("unstuck.view_node")
def workers(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """All that were seen of late, those in trouble first."""
    context = {"nodes": Parts().read(archive.nodes), "most": archive.MOST_NODES}
    return show(request, viewer, "workers.html", context)
