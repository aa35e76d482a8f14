"""The search box, and where a task is."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode

from unstuck import project, remote, whereabouts
from unstuck.core.errors import NoApp
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.page import page, show
from unstuck.dashboard.queries import find
from unstuck.dashboard.queries.find import Found
from unstuck.dashboard.reading import Part, reading
from unstuck.dashboard.text import text_in
from unstuck.whereabouts import Whereabouts

RUNS = "unstuck.view_taskrun"
"""Whoever may see runs is told of a task's whereabouts as well."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""As Celery makes ids: worth asking for, even if nothing is written down of it."""


@page()
def search(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """To the one thing that fits exactly, or what is alike."""
    text = text_in(request, "q")
    if not text:
        return show(request, viewer, "search.html", {"found": Found(), "text": ""})
    with reading():
        task = find.task(text, viewer)
        if not task.is_nothing:
            return HttpResponseRedirect(_place_of(text, task))
        letter = find.exact_letter(text, viewer)
        if letter is not None:
            return HttpResponseRedirect(_letter(letter.pk))
        if UUID.fullmatch(text) and viewer.may(RUNS):
            return HttpResponseRedirect(_task(text))
        found = find.alike(text, viewer)
    return show(request, viewer, "search.html", {**_found(found), "text": text})


@page()
def task(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Where a task is: what is written down of it, and what the broker and nodes say."""
    text = text_in(request, "id")
    with reading():
        found = find.task(text, viewer)
        expected = remote.expected_nodes() if viewer.may(RUNS) else []
    asked = _asked(text, expected) if text and viewer.may(RUNS) else Part()
    context = {**_found(found), "text": text, "asked": asked}
    return show(request, viewer, "task.html", context)


def _found(found: Found) -> dict[str, Any]:
    return {"found": found, "most": find.MOST_FOUND}


def _asked(task_id: str, expected: list[str]) -> Part[Whereabouts]:
    try:
        app = project.our_app()
    except NoApp:
        return Part(problem="app")
    return Part(whereabouts.now(app, task_id, expected=expected))


def _place_of(task_id: str, found: Found) -> str:
    if len(found.letters) == 1 and not found.waiting:
        return _letter(found.letters[0].pk)
    return _task(task_id)


def _task(task_id: str) -> str:
    return f"{reverse('unstuck:task')}?{urlencode({'id': task_id})}"


def _letter(pk: int) -> str:
    return reverse("unstuck:letters_one", args=[pk])
