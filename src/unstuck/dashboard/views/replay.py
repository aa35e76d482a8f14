"""Replay: a page that asks, then a run that goes on step by step."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from unstuck import operations, project, selection
from unstuck.core.errors import UnstuckError
from unstuck.dashboard import redrive
from unstuck.dashboard.access import OPERATE, Viewer
from unstuck.dashboard.filters import Chosen
from unstuck.dashboard.page import page, show
from unstuck.dashboard.paging import Count, count
from unstuck.dashboard.queries import letters as read
from unstuck.dashboard.reading import reading
from unstuck.dashboard.redrive import Redrive
from unstuck.models import DeadLetter
from unstuck.operations import ReplayReport
from unstuck.selection import letters

NEEDS = ("unstuck.view_deadletter", OPERATE)
LONGEST_WHY = 500
NAMED = 10


@dataclass(frozen=True, slots=True)
class Question:
    """What a page of confirmation says of the letters that it is about."""

    count: Count
    named: list[DeadLetter]
    reasons: dict[str, int]
    upto: int
    """The newest row of them: nobody has agreed to what is buried later."""


@page(*NEEDS, acts=True)
def replay(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Ask how many letters are meant, and how; then put them back."""
    chosen = Chosen.of(request.GET, sees_payload=viewer.sees_payload)
    with reading():
        one = _single(chosen)
    if one is not None:
        return _replay_one(request, viewer, one)
    found = chosen.select(sees_payload=viewer.sees_payload)
    found = found.filter(replayed_at__isnull=True)
    rate = redrive.rate_of(request.POST.get("rate", "10"))
    if request.method == "POST" and rate is not None and not chosen.is_nothing:
        with reading():
            begun = Redrive.begin(
                chosen,
                agreed(found, request.POST),
                why=request.POST.get("why", "")[:LONGEST_WHY],
                rate=rate,
                canary="canary" in request.POST,
            )
        return _step(request, viewer, begun)
    if rate is None:
        text = _("The rate must be a number from %(least)s to %(most)s, or empty.")
        bounds = {"least": redrive.SLOWEST, "most": int(redrive.FASTEST)}
        messages.error(request, text % bounds)
    with reading():
        question = asked(found)
    context = {"chosen": chosen, "question": question, "post": request.POST}
    return show(request, viewer, "replay.html", context)


@page(*NEEDS, acts=True)
def run(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """How far a run has come; a POST takes the next step."""
    begun = Redrive.from_text(request.GET.get("run", ""))
    if begun is None:
        messages.error(request, _("This address names no run."))
        return HttpResponseRedirect(reverse("unstuck:letters"))
    with reading():
        progress = begun.progress(sees_payload=viewer.sees_payload)
    if request.method == "POST" and not (progress.is_stopped or progress.is_over):
        return _step(request, viewer, begun)
    context = {
        "run": begun,
        "run_text": begun.as_text(),
        "progress": progress,
        "goes_on": bool(request.GET.get("go")) and not begun.trouble,
    }
    return show(request, viewer, "run.html", context)


def asked(found: QuerySet[DeadLetter]) -> Question:
    """What a page of confirmation shows."""
    upto = found.aggregate(newest=Max("pk"))["newest"] or 0
    found = found.filter(pk__lte=upto)
    rows = read.listed(found, messages=False).order_by("buried_at", "pk")
    reasons, _capped = read.by_reason(found)
    return Question(count(found), list(rows[:NAMED]), reasons, upto)


def agreed(found: QuerySet[DeadLetter], post: QueryDict) -> QuerySet[DeadLetter]:
    """Those that were there when the page was shown by which somebody has agreed."""
    text = post.get("upto", "")
    return found.filter(pk__lte=int(text) if selection.ROW_ID.fullmatch(text) else 0)


def _step(request: HttpRequest, viewer: Viewer, begun: Redrive) -> HttpResponse:
    try:
        app = project.our_app()
        moved, report = begun.step(
            app, who=viewer.name, sees_payload=viewer.sees_payload
        )
    except UnstuckError as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(_letters(begun))
    for reason in redrive.skips(report).values():
        messages.warning(request, reason)
    go = "1" if _goes_on(request, moved, report) else ""
    query = urlencode({"run": moved.as_text(), "go": go})
    return HttpResponseRedirect(f"{reverse('unstuck:letters_replay_run')}?{query}")


def _goes_on(request: HttpRequest, moved: Redrive, report: ReplayReport) -> bool:
    """Whether a script may press the button; an unclear canary is for people."""
    unclear = bool(report.canary) and report.canary != "ended"
    return "go" in request.POST and not unclear and not moved.trouble


def _letters(begun: Redrive) -> str:
    return f"{reverse('unstuck:letters')}?{begun.query}"


def _single(chosen: Chosen) -> DeadLetter | None:
    if chosen.is_nothing or len(chosen.rows) != 1:
        return None
    return letters().filter(pk=chosen.rows[0]).first()


def _replay_one(request: HttpRequest, viewer: Viewer, one: DeadLetter) -> HttpResponse:
    if request.method == "POST":
        try:
            task_id = operations.replay_letter(
                project.our_app(),
                one,
                who=viewer.name,
                why=request.POST.get("why", "")[:LONGEST_WHY],
                again="again" in request.POST,
            )
        except UnstuckError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, _("Replayed as %(id)s.") % {"id": task_id})
            return HttpResponseRedirect(reverse("unstuck:letters_one", args=[one.pk]))
    return show(request, viewer, "replay_one.html", {"letter": one})
