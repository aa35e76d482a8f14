"""What operators do from the admin: a page that asks, then the deed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from unstuck import operations, project
from unstuck.core.errors import UnstuckError
from unstuck.models import DeadLetter
from unstuck.operations import ReplayReport

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

MOST_AT_ONCE = 500
"""Letters that one request may replay or purge; the command line takes any number."""

NAMED_SKIPS = 5

VERBS = {"replay": "put back on the queue", "purge": "deleted for good"}


class WhyForm(forms.Form):
    """The reason that the audit keeps."""

    why = forms.CharField(
        label="Reason",
        max_length=500,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="Kept in the audit.",
    )


def act(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    letters: QuerySet[DeadLetter],
    verb: str,
) -> HttpResponse | None:
    """The page that asks, or nothing once it was answered and done."""
    count = letters.count()
    if count > MOST_AT_ONCE:
        text = (
            f"{count} letters are too many for one page, which takes {MOST_AT_ONCE}. "
            f"Use `manage.py unstuck dead {verb}`."
        )
        model_admin.message_user(request, text, messages.ERROR)
        return None
    form = WhyForm(request.POST if "confirmed" in request.POST else None)
    form.fields["why"].required = verb == "purge"
    if form.is_valid():
        _do(model_admin, request, letters, verb, form.cleaned_data["why"])
        return None
    return _ask(model_admin, request, letters, verb, form)


def page(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    template: str,
    context: dict[str, Any],
) -> TemplateResponse:
    """A page of ours within the admin."""
    around = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
    }
    return TemplateResponse(request, template, {**around, **context})


def _ask(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    letters: QuerySet[DeadLetter],
    verb: str,
    form: WhyForm,
) -> HttpResponse:
    found = list(letters)
    context = {
        "title": f"{verb.capitalize()} {_count(len(found))}?",
        "verb": verb,
        "consequence": VERBS[verb],
        "letters": found,
        "replayed_before": sum(letter.replayed_at is not None for letter in found),
        "action": request.POST.get("action", ""),
        "checkbox": ACTION_CHECKBOX_NAME,
        "form": form,
    }
    template = "admin/unstuck/deadletter/confirm.html"
    return page(model_admin, request, template, context)


def _do(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    letters: QuerySet[DeadLetter],
    verb: str,
    why: str,
) -> None:
    who = request.user.get_username()
    try:
        if verb == "purge":
            purged = operations.purge(letters, who=who, why=why)
            text = f"{_count(purged)} purged."
            model_admin.message_user(request, text, messages.SUCCESS)
            return
        report = operations.replay_many(project.our_app(), letters, who=who, why=why)
    except UnstuckError as error:
        model_admin.message_user(request, str(error), messages.ERROR)
        return
    for text, level in _words(report):
        model_admin.message_user(request, text, level)


def _words(report: ReplayReport) -> list[tuple[str, int]]:
    words = []
    if report.replayed:
        words.append((f"{_count(len(report.replayed))} replayed.", messages.SUCCESS))
    for why in list(report.skipped.values())[:NAMED_SKIPS]:
        words.append((f"Skipped: {why}", messages.WARNING))
    if len(report.skipped) > NAMED_SKIPS:
        text = f"{_count(len(report.skipped))} skipped in all."
        words.append((text, messages.WARNING))
    if report.stopped:
        text = f"Stopped, {report.left} left alone: {report.stopped}"
        words.append((text, messages.ERROR))
    return words


def _count(letters: int) -> str:
    return f"{letters} dead letter{'' if letters == 1 else 's'}"
