"""Locks: who holds what now, and taking one from its holder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from unstuck import operations_locks, project
from unstuck.core.errors import LocksUnreachable, NoApp, ReleaseError
from unstuck.dashboard.access import OPERATE, Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.reading import Part
from unstuck.dashboard.views.replay import LONGEST_WHY
from unstuck.locks.backend import Held

logger = logging.getLogger(__name__)

LOOKS = "unstuck.view_taskrun"
"""A lock tells of a run: which task holds it, where, and since when."""

MOST = 200
"""Locks on the page, by name."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A lock as the page writes it."""

    held: Held
    since: datetime


@page(LOOKS)
def locks(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """All that are held now, those that are waited for first."""
    found = held_now()
    rows = sorted(found.value or (), key=lambda held: (not held.waiting, held.name))
    context = {
        "locks": found,
        "rows": [_shown(held) for held in rows[:MOST]],
        "waiting": sum(len(held.waiting) for held in rows),
        "most": MOST,
    }
    return show(request, viewer, "locks.html", context)


@page(LOOKS, OPERATE, acts=True)
def release(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Say who holds it, ask why, and take it from them."""
    name = request.GET.get("name", "")
    found = held_now()
    held = next((one for one in found.value or () if one.name == name), None)
    if held is None and not found.problem:
        raise Http404(_("Nobody holds the lock %(name)s now.") % {"name": name})
    if held is not None and request.method == "POST":
        problem = _release(request, viewer, held)
        if not problem:
            return HttpResponseRedirect(reverse("unstuck:locks"))
        messages.error(request, problem)
    context = {"locks": found, "name": name, "lock": held and _shown(held)}
    return show(request, viewer, "locks_release.html", context)


def _release(request: HttpRequest, viewer: Viewer, held: Held) -> str:
    """Do it; returns why it was not done."""
    why = request.POST.get("why", "").strip()[:LONGEST_WHY]
    if not why:
        return _("Give a reason: its holder may still be at work.")
    if request.POST.get("fence") != str(held.fence):
        return _("Somebody else holds it by now. Look again before you release it.")
    try:
        operations_locks.release_lock(
            held.name, who=viewer.name, why=why, fence=held.fence
        )
    except (ReleaseError, LocksUnreachable) as error:
        return str(error)
    messages.success(request, _("%(name)s released.") % {"name": held.name})
    return ""


def held_now() -> Part[list[Held]]:
    """All locks, or why they cannot be told."""
    try:
        # Its broker says where the locks are, unless the project does.
        project.our_app()
        return Part(operations_locks.held_locks())
    except NoApp:
        return Part(problem="app")
    except LocksUnreachable:
        logger.warning("The dashboard could not read the locks", exc_info=True)
        return Part(problem="locks")


def _shown(held: Held) -> Shown:
    return Shown(held, datetime.fromtimestamp(held.since, UTC))
