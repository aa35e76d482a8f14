"""Purge: a page that asks for the reason, then the deed."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from unstuck import operations
from unstuck.dashboard.access import OPERATE, Viewer
from unstuck.dashboard.filters import Chosen
from unstuck.dashboard.page import page, show
from unstuck.dashboard.reading import reading
from unstuck.dashboard.views.replay import LONGEST_WHY, agreed, asked
from unstuck.models import DeadLetter

MOST_AT_ONCE = 5_000
"""Letters that one request deletes, the oldest rows first; a second one takes more."""


@page("unstuck.view_deadletter", OPERATE, acts=True)
def purge(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Say how many would go, ask why, and delete them."""
    chosen = Chosen.of(request.GET, sees_payload=viewer.sees_payload)
    found = chosen.select(sees_payload=viewer.sees_payload)
    why = request.POST.get("why", "").strip()[:LONGEST_WHY]
    if request.method == "POST" and not chosen.is_nothing:
        if why:
            return _purge(request, viewer, found, why)
        messages.error(request, _("Give a reason: what is purged is gone for good."))
    with reading():
        question = asked(found)
    context = {"chosen": chosen, "question": question, "most": MOST_AT_ONCE}
    return show(request, viewer, "purge.html", context)


def _purge(
    request: HttpRequest, viewer: Viewer, found: QuerySet[DeadLetter], why: str
) -> HttpResponse:
    meant = agreed(found, request.POST)
    with reading():
        last = meant.order_by("pk").values_list("pk", flat=True)[MOST_AT_ONCE:][:1]
        beyond = next(iter(last), None)
    if beyond is not None:
        meant = meant.filter(pk__lt=beyond)
    purged = operations.purge(meant, who=viewer.name, why=why)
    text = ngettext(
        "%(count)s dead letter purged.", "%(count)s dead letters purged.", purged
    )
    messages.success(request, text % {"count": purged})
    if beyond is not None:
        text = _("There are more that fit: purge again, or use manage.py unstuck dead.")
        messages.warning(request, text)
    return HttpResponseRedirect(reverse("unstuck:letters"))
