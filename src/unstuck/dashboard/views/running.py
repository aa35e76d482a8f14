"""Running: what runs where, where it stands right now, and stopping it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from unstuck import operations_tasks, project
from unstuck.audit import InDoubt
from unstuck.core.errors import BrokerUnreachable, NoApp
from unstuck.dashboard.access import OPERATE, Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.queries import running as read
from unstuck.dashboard.reading import Part, Parts
from unstuck.dashboard.text import text_in
from unstuck.dashboard.views.replay import LONGEST_WHY
from unstuck.operations_tasks import Stopped

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOKS = "unstuck.view_taskrun"


@page(LOOKS)
def running(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """What the nodes wrote down last, the longest first."""
    found = Parts().read(read.running)
    return show(request, viewer, "running.html", {"running": found})


@page(LOOKS)
def stack(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Where a task stands right now, as its node says."""
    task_id, node = text_in(request, "id"), text_in(request, "node")
    context = {
        "task_id": task_id,
        "node": node,
        "asked": asked(
            lambda: _stacks(operations_tasks.stacks(_app(), task_id, node=node))
        )
        if task_id
        else Part(value={}),
    }
    return show(request, viewer, "stack.html", context)


@page(LOOKS, OPERATE, acts=True)
def stop(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Ask why, then tell all nodes to end it."""
    task_id = text_in(request, "id")
    why = request.POST.get("why", "").strip()[:LONGEST_WHY]
    told: Part[Stopped] = Part()
    if request.method == "POST" and task_id:
        if why:
            try:
                told = asked(
                    lambda: operations_tasks.stop_task(
                        _app(), task_id, who=viewer.name, why=why
                    )
                )
            except InDoubt as error:
                messages.error(request, str(error))
        else:
            text = _("Give a reason: what the task did so far stays done.")
            messages.error(request, text)
    if told.value and told.value.on:
        text = _("%(id)s is stopped on %(nodes)s.")
        text %= {"id": task_id, "nodes": ", ".join(told.value.on)}
        messages.success(request, text)
        return HttpResponseRedirect(reverse("unstuck:running"))
    context = {"task_id": task_id, "told": told}
    return show(request, viewer, "stop.html", context)


def asked(ask: Callable[[], T]) -> Part[T]:
    """What workers answer, or why they could not be asked."""
    try:
        return Part(ask())
    except NoApp:
        return Part(problem="app")
    except BrokerUnreachable:
        logger.warning("The dashboard could not ask the workers", exc_info=True)
        return Part(problem="broker")


def _app() -> Any:
    return project.our_app()


def _stacks(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Those that run it, and the names of the others."""
    return {
        "found": {node: seen for node, seen in answers.items() if seen},
        "others": sorted(node for node, seen in answers.items() if not seen),
    }
