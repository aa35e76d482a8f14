"""One dead letter: everything that is known of it, and its replay with other arguments."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from unstuck import conf, operations, project
from unstuck.core.errors import UnstuckError
from unstuck.dashboard import edit as editing
from unstuck.dashboard.access import OPERATE, PAYLOAD, Viewer
from unstuck.dashboard.edit import Arguments, EditError, EditForm
from unstuck.dashboard.frames import place_of, without_messages
from unstuck.dashboard.page import page, show
from unstuck.dashboard.paging import count
from unstuck.dashboard.queries import letters as read
from unstuck.dashboard.reading import reading
from unstuck.dashboard.words import MEANINGS
from unstuck.letters.redact import redacted_kwargs
from unstuck.letters.replay import is_replayable
from unstuck.models import DeadLetter
from unstuck.selection import letters

REPEATED = frozenset({"argsrepr", "kwargsrepr"})
"""Headers of Celery in which the arguments are once more."""

EDITS = ("unstuck.view_deadletter", OPERATE, PAYLOAD)


@page("unstuck.view_deadletter")
def letter(request: HttpRequest, viewer: Viewer, pk: int) -> HttpResponse:
    """What ended it, what can be done about it, and the message."""
    with reading():
        found = _letter(pk)
        chain = read.chain_of(found)
        may_see_runs = viewer.may("unstuck.view_taskrun")
        runs = read.runs_of(found.task_id) if may_see_runs else []
        alike = count(letters().filter(fingerprint=found.fingerprint))
    context = {
        "letter": found,
        "meaning": MEANINGS[found.reason],
        "place": place_of(found.stack or found.traceback),
        "traceback": _traceback(found, viewer),
        "chain": chain,
        "runs": runs,
        "most_runs": read.MOST_RUNS,
        "may_see_tasks": may_see_runs,
        "alike": alike,
        "size": len(found.message),
        "is_replayable": is_replayable(found.stored_message()),
        "is_editable": editing.is_editable(found),
        **(_payload(found) if viewer.sees_payload else {}),
    }
    return show(request, viewer, "letter.html", context)


@page(*EDITS, acts=True)
def edit(request: HttpRequest, viewer: Viewer, pk: int) -> HttpResponse:
    """Other arguments: a form, then both side by side, then the replay."""
    with reading():
        found = _letter(pk)
    before = editing.shown(found)
    if before is None or not editing.is_editable(found):
        messages.error(request, _("Only JSON messages can be edited."))
        return HttpResponseRedirect(_url(found))
    if request.method != "POST":
        first = {"args": before.args, "kwargs": before.kwargs}
        form = EditForm(initial=first)
        return _ask(request, viewer, found, form)
    form = EditForm(request.POST)
    if not form.is_valid():
        return _ask(request, viewer, found, form)
    edited = Arguments(form.cleaned_data["args"], form.cleaned_data["kwargs"])
    if "confirmed" not in request.POST:
        return _ask(request, viewer, found, form, edited)
    return _replay(request, viewer, found, form, edited)


def _ask(
    request: HttpRequest,
    viewer: Viewer,
    found: DeadLetter,
    form: EditForm,
    edited: Arguments | None = None,
) -> HttpResponse:
    before = editing.shown(found)
    sides = [
        (name, editing.as_json(old), editing.as_json(new))
        for name, old, new in _sides(before, edited)
    ]
    context = {"letter": found, "form": form, "sides": sides}
    return show(request, viewer, "edit.html", context)


def _sides(
    before: Arguments | None, after: Arguments | None
) -> list[tuple[str, Any, Any]]:
    if before is None or after is None:
        return []
    return [
        (_("Positional"), before.args, after.args),
        (_("By name"), before.kwargs, after.kwargs),
    ]


def _replay(
    request: HttpRequest,
    viewer: Viewer,
    found: DeadLetter,
    form: EditForm,
    edited: Arguments,
) -> HttpResponse:
    try:
        whole = editing.completed(found, edited)
        app = project.our_app()
        _load_tasks(app)
        task_id = operations.replay_letter(
            app,
            found,
            who=viewer.name,
            why=form.cleaned_data["why"],
            args=whole.args,
            kwargs=whole.kwargs,
            again="again" in request.POST,
        )
    except (UnstuckError, EditError) as error:
        messages.error(request, str(error))
        return _ask(request, viewer, found, form, edited)
    messages.success(request, _("Replayed as %(id)s.") % {"id": task_id})
    return HttpResponseRedirect(_url(found))


def _load_tasks(app: Any) -> None:
    """Their signatures say which arguments fit."""
    try:
        project.load_tasks(app)
    except Exception as error:
        # Modules of the project: they may raise whatever they like.
        text = _("The tasks of the project cannot be imported: %(error)s")
        raise EditError(text % {"error": type(error).__name__}) from error


def _letter(pk: int) -> DeadLetter:
    # The database holds no larger number, and some raise an error when asked for one.
    found = letters().filter(pk=pk).first() if pk < 2**63 else None
    if found is None:
        raise Http404(
            _("There is no dead letter %(row)s. It was purged, or there never was one.")
            % {"row": pk}
        )
    return found


def _url(found: DeadLetter) -> str:
    return reverse("unstuck:letters_one", args=[found.pk])


def _traceback(found: DeadLetter, viewer: Viewer) -> str:
    text: str = found.traceback
    return text if viewer.sees_payload else without_messages(text)


def _payload(found: DeadLetter) -> dict[str, str]:
    names = conf.current().redact
    headers = {k: v for k, v in found.headers.items() if k not in REPEATED}
    shown = redacted_kwargs(headers, names)
    return {
        "args": _readable(found.args),
        "kwargs": _readable(found.kwargs),
        "headers": json.dumps(shown, indent=2, ensure_ascii=False),
    }


def _readable(value: Any) -> str:
    return _("could not be read") if value is None else editing.as_json(value)
