"""Scheduled and retries: what waits for its time; running one now, dropping one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from unstuck import operations_planned, project, remote
from unstuck import planned as read
from unstuck.core.errors import ControlError, NoApp
from unstuck.core.planned import Planned, Where, Why
from unstuck.dashboard.access import OPERATE, Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.reading import Part, Parts
from unstuck.dashboard.text import text_in
from unstuck.dashboard.views.replay import LONGEST_WHY
from unstuck.dashboard.views.running import asked
from unstuck.dashboard.words import PLANNED
from unstuck.planned import MOST_SHOWN, Failure, Live, Wanted

LOOKS = "unstuck.view_taskrun"
FIELDS = ("task", "queue", "why")


@dataclass(frozen=True, slots=True)
class Row:
    """A run that waits, as the page writes it."""

    planned: Planned
    attempts: int | None
    """How often it runs at most."""
    failure: Failure | None
    seconds: float | None
    """Until it is due; negative when it is late."""

    @property
    def due_ms(self) -> int:
        """Which one it is, if its id comes twice."""
        due_at = self.planned.due_at
        return round(due_at.timestamp() * 1000) if due_at else 0

    @property
    def can_run_now(self) -> bool:
        """Whether its message can be reached."""
        return self.planned.where is Where.BROKER

    @property
    def can_be_dropped(self) -> bool:
        """Whether somebody can be told."""
        return self.planned.where in {Where.BROKER, Where.NODE}


@page(LOOKS)
def planned(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Those that fit the URL, the next first."""
    filters = {name: text_in(request, name) for name in FIELDS}
    problem = _problem(filters["why"])
    parts = Parts()
    found: Part[Live] = Part()
    rows: list[Row] = []
    if not problem:
        found = _found(viewer, parts, Wanted(**filters))
        shown = found.value.rows[:MOST_SHOWN] if found.value else []
        rows = _rows(shown, parts)
    context = {
        "filters": filters,
        "problem": problem,
        "planned": found,
        "rows": rows,
        "whys": [(why.value, PLANNED[why]) for why in Why],
        "most": MOST_SHOWN,
        "looked_at": Wanted(**filters).most_looked_at,
    }
    return show(request, viewer, "planned.html", context)


@page(LOOKS, OPERATE, acts=True)
def run_now(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Ask why, then have it run as soon as a node is free."""
    return _act(request, viewer, "run")


@page(LOOKS, OPERATE, acts=True)
def drop(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Ask why, then have it not run."""
    return _act(request, viewer, "drop")


def _found(viewer: Viewer, parts: Parts, wanted: Wanted) -> Part[Live]:
    try:
        app = project.our_app()
    except NoApp:
        return Part(problem="app")
    shows = viewer.sees_payload
    expected = parts.read(remote.expected_nodes).value or []
    outbox = parts.read(lambda: read.in_outbox(app, wanted, arguments=shows))
    live = read.live(app, expected, wanted, arguments=shows)
    missing = Live(untold=[remote.Untold("database")])
    return Part(read.those([live, outbox.value or missing], wanted))


def _rows(shown: Iterable[Planned], parts: Parts) -> list[Row]:
    shown = list(shown)
    failures = parts.read(lambda: read.failures(shown)).value or {}
    now = timezone.now()
    return [
        Row(
            one,
            _attempts(one.task_name),
            failures.get(one.task_id),
            (one.due_at - now).total_seconds() if one.due_at else None,
        )
        for one in shown
    ]


def _attempts(task_name: str) -> int | None:
    return read.attempts_of(project.our_app(), task_name)


def _problem(why: str) -> str:
    if not why or read.why(why):
        return ""
    known = {"field": "why", "value": why, "known": ", ".join(Why)}
    return _("%(field)s=%(value)s is not known. Known: %(known)s.") % known


def _act(request: HttpRequest, viewer: Viewer, verb: str) -> HttpResponse:
    task_id, due = text_in(request, "id"), text_in(request, "due")
    why = request.POST.get("why", "").strip()[:LONGEST_WHY]
    told: Part[str] = Part()
    missing = _missing(why, due)
    if request.method == "POST" and task_id and missing:
        messages.error(request, missing)
    elif request.method == "POST" and task_id:
        due_ms = int(due) if due else None
        try:
            told = asked(lambda: _do(verb, viewer.name, task_id, why, due_ms))
        except ControlError as error:
            messages.error(request, str(error))
    if told.value:
        messages.success(request, told.value)
        return HttpResponseRedirect(reverse("unstuck:planned"))
    context = {"task_id": task_id, "told": told, "runs": verb == "run"}
    return show(request, viewer, "planned_act.html", context)


def _missing(why: str, due: str) -> str:
    # Without its time, another run of the same id would be taken for it.
    if due and not due.isdecimal():
        text = _(
            "Nothing was done: due=%(due)s in the address is no time in milliseconds. "
            "Choose the task from the list again."
        )
        return text % {"due": due}
    return "" if why else _("Give a reason: others will ask why.")


def _do(verb: str, who: str, task_id: str, why: str, due_ms: int | None) -> str:
    app = project.our_app()
    known: dict[str, Any] = {"who": who, "why": why, "due_ms": due_ms}
    if verb == "run":
        queue = operations_planned.run_now(app, task_id, **known)
        text = _("%(id)s is in the queue %(queue)s now.")
        return text % {"id": task_id, "queue": queue}
    dropped = operations_planned.drop_task(app, task_id, **known)
    if dropped.queue:
        return _("%(id)s is dropped.") % {"id": task_id}
    text = _("%(id)s is revoked on %(nodes)s, until they are started anew.")
    return text % {"id": task_id, "nodes": ", ".join(dropped.told)}
