"""Queues: what waits in them, who consumes them, and pausing one."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from unstuck import operations_queues, project
from unstuck.core.errors import ControlError, NoApp
from unstuck.dashboard.access import OPERATE, Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.queries import queues as read
from unstuck.dashboard.reading import Part, Parts
from unstuck.dashboard.views.replay import LONGEST_WHY
from unstuck.dashboard.views.running import asked
from unstuck.letters.queue import name_for
from unstuck.operations_queues import Told

LOOKS = "unstuck.view_node"
LONGEST = 255

Act = Callable[..., Told]


@page(LOOKS)
def queues(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """What was counted last, those in trouble first."""
    found = Parts().read(lambda: read.queues(timezone.now(), dead_queue()))
    return show(request, viewer, "queues.html", {"queues": found})


@page(LOOKS, OPERATE, acts=True)
def pause(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Ask why, then have its consumers stop."""
    return _act(request, viewer, operations_queues.pause_queue, "pause")


@page(LOOKS, OPERATE, acts=True)
def resume(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Ask why, then have those that consumed it go on."""
    return _act(request, viewer, operations_queues.resume_queue, "resume")


def _act(request: HttpRequest, viewer: Viewer, act: Act, verb: str) -> HttpResponse:
    name = request.GET.get("name", "").replace("\x00", "")[:LONGEST]
    why = request.POST.get("why", "").strip()[:LONGEST_WHY]
    told: Part[Told] = Part()
    if request.method == "POST" and name and not why:
        messages.error(request, _("Give a reason: others will ask why."))
    elif request.method == "POST" and name:
        try:
            told = asked(lambda: act(project.our_app(), name, who=viewer.name, why=why))
        except ControlError as error:
            messages.error(request, str(error))
    if told.value and not (told.value.failed or told.value.silent):
        nodes = ", ".join(told.value.done)
        messages.success(request, _done(verb) % {"name": name, "nodes": nodes})
        return HttpResponseRedirect(reverse("unstuck:queues"))
    context = {"name": name, "told": told, "pauses": verb == "pause"}
    return show(request, viewer, "queue_act.html", context)


def _done(verb: str) -> str:
    if verb == "pause":
        return _("%(name)s is paused on %(nodes)s.")
    return _("%(nodes)s consumes %(name)s again.")


def dead_queue() -> str:
    """The queue of the dead letters; empty where no app of ours is known."""
    try:
        return name_for(project.our_app())
    except NoApp:
        return ""
