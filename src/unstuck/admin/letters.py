"""Dead letters in Django's admin: to look, to replay, to purge."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from unstuck import selection
from unstuck.admin import acting
from unstuck.admin.base import TaskFilter, sees_payload
from unstuck.admin.ended import HAPPENED, EndedAdmin
from unstuck.admin.words import block_of, minute_of
from unstuck.models import DeadLetter

HIDDEN = "hidden: needs unstuck.view_payload"
LARGE = (
    "message",
    "traceback",
    "stack",
    "soft_stack",
    "headers",
    "properties",
    "args",
    "kwargs",
)


class ReplayedFilter(admin.SimpleListFilter):
    """What is still to be looked after."""

    title = "replayed"
    parameter_name = "replayed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "not replayed"), ("yes", "replayed")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter]
    ) -> QuerySet[DeadLetter]:
        match self.value():
            case "yes":
                return queryset.filter(replayed_at__isnull=False)
            case "no":
                return queryset.filter(replayed_at__isnull=True)
        return queryset


@admin.register(DeadLetter)
class DeadLetterAdmin(EndedAdmin):
    """Dead letters: everybody with view permission looks, operators act."""

    list_display = ("task", "reason", "happened", "buried", "replayed")
    list_filter = ("reason", ReplayedFilter, "buried_at", TaskFilter)
    date_hierarchy = "buried_at"
    actions = ("replay_selected", "purge_selected")
    change_form_template = "admin/unstuck/deadletter/change_form.html"
    large = LARGE
    instead = {
        **EndedAdmin.instead,
        "shown_args": "hidden_arguments",
        "shown_kwargs": "hidden_arguments",
        "shown_headers": "hidden_arguments",
    }
    fieldsets = (
        (None, {"fields": ("task", "task_id", "queue", "reason", "cause")}),
        (
            "What happened",
            {
                "fields": (
                    *HAPPENED,
                    "shown_waiting_for",
                )
            },
        ),
        ("Arguments", {"fields": ("shown_args", "shown_kwargs", "shown_headers")}),
        (
            "When and where",
            {
                "fields": (
                    "buried_at",
                    "attempts",
                    "deliveries",
                    "runtime_seconds",
                    "cpu_seconds",
                    "memory",
                    "node",
                    "pid",
                    "child_age_seconds",
                    "fingerprint",
                    "letter_id",
                )
            },
        ),
        (
            "Replay",
            {"fields": ("replay_of_link", "replayed_at", "replayed_as_link")},
        ),
    )

    # -- who may see what

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether this user may replay and purge."""
        return request.user.has_perm("unstuck.operate")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], search_term: str
    ) -> tuple[QuerySet[DeadLetter], bool]:
        """Arguments are searched only for those who may see them."""
        arguments = sees_payload(request)
        for word in search_term.split():
            queryset = queryset.filter(selection.contains(word, arguments=arguments))
        return queryset, False

    # -- what is shown

    @admin.display(description="buried", ordering="buried_at")
    def buried(self, letter: DeadLetter) -> str:
        """When, short enough for a column."""
        return minute_of(letter.buried_at)

    @admin.display(description="replayed", ordering="replayed_at")
    def replayed(self, letter: DeadLetter) -> str:
        """Whether somebody has looked after it."""
        return "yes" if letter.replayed_at else "no"

    @admin.display(description="positional")
    def shown_args(self, letter: DeadLetter) -> SafeString | str:
        return block_of(letter.args)

    @admin.display(description="by name")
    def shown_kwargs(self, letter: DeadLetter) -> SafeString | str:
        return block_of(letter.kwargs)

    @admin.display(description="headers")
    def shown_headers(self, letter: DeadLetter) -> SafeString | str:
        return block_of(letter.headers)

    @admin.display(description="arguments")
    def hidden_arguments(self, letter: DeadLetter) -> str:
        return HIDDEN

    @admin.display(description="replay of")
    def replay_of_link(self, letter: DeadLetter) -> SafeString | str:
        return _link(letter.replay_of)

    @admin.display(description="replayed as")
    def replayed_as_link(self, letter: DeadLetter) -> SafeString | str:
        return _link(letter.replayed_as)

    # -- what can be done

    @admin.action(description="Replay selected dead letters", permissions=["operate"])
    def replay_selected(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter]
    ) -> HttpResponse | None:
        """Put the messages back, once somebody has confirmed it."""
        return acting.act(self, request, queryset, "replay")

    @admin.action(description="Purge selected dead letters", permissions=["operate"])
    def purge_selected(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter]
    ) -> HttpResponse | None:
        """Delete the letters, once somebody has confirmed it."""
        return acting.act(self, request, queryset, "purge")

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path(
                f"<int:pk>/{verb}/",
                wrap(self.act_on_one),
                {"verb": verb},
                name=f"unstuck_deadletter_{verb}",
            )
            for verb in acting.VERBS
        ]
        body = path("<int:pk>/body/", wrap(self.body), name="unstuck_deadletter_body")
        return [*own, body, *super().get_urls()]

    def act_on_one(self, request: HttpRequest, pk: int, verb: str) -> HttpResponse:
        """Replay or purge one letter, once somebody has confirmed it."""
        looks = self.has_view_permission(request)
        if not (looks and self.has_operate_permission(request)):
            raise PermissionDenied
        if self._letter(pk) is None:
            return self._gone(request, pk)
        one = selection.letters().filter(pk=pk)
        page = acting.act(self, request, one, verb)
        if page is not None:
            return page
        still_there = self._letter(pk) is not None
        return HttpResponseRedirect(_url("change", pk) if still_there else _url())

    def body(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The message as it was on the broker, arguments in clear."""
        letter = self._letter(pk)
        if letter is None:
            return self._gone(request, pk)
        if not (self.has_view_permission(request) and sees_payload(request)):
            raise PermissionDenied
        message = letter.stored_message()
        context = {
            "title": "Message body",
            "subtitle": str(letter),
            "letter": letter,
            "message": message,
            "text": message.body.decode("utf-8", "backslashreplace"),
        }
        template = "admin/unstuck/deadletter/body.html"
        return acting.page(self, request, template, context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = {
            "may_operate": self.has_operate_permission(request),
            "sees_payload": sees_payload(request),
            **(extra_context or {}),
        }
        return super().changeform_view(request, object_id, form_url, context)

    def _letter(self, pk: int) -> DeadLetter | None:
        return selection.letters().filter(pk=pk).first()

    def _gone(self, request: HttpRequest, pk: int) -> HttpResponse:
        text = f"There is no dead letter {pk}; somebody may have purged it."
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(_url())


def _link(task_id: str) -> SafeString | str:
    """A task id, as a link when there is a letter of that task."""
    letter = selection.letters().filter(task_id=task_id).first() if task_id else None
    if letter is None:
        return task_id or "-"
    return format_html('<a href="{}">{}</a>', _url("change", letter.pk), task_id)


def _url(name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:unstuck_deadletter_{name}", args=args)
