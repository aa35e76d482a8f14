"""Who may see and do what. Closed, unless a permission or the project opens it."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import global_settings, settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string

from unstuck import conf

LOOK = (
    "unstuck.view_deadletter",
    "unstuck.view_taskrun",
    "unstuck.view_incident",
    "unstuck.view_node",
    "unstuck.view_auditentry",
)
"""Each opens the pages of one model."""

OPERATE = "unstuck.operate"
PAYLOAD = "unstuck.view_payload"

Policy = Callable[[HttpRequest, str], bool]
"""Says whether a request has one of the permissions above."""


class Viewer:
    """Whoever asks for a page; each permission is asked for once."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._policy = policy()
        self._known: dict[str, bool] = {}

    def may(self, permission: str) -> bool:
        """Whether the policy says yes, and nothing but yes."""
        if permission not in self._known:
            # A coroutine, for one, is true as well, and allows nothing.
            self._known[permission] = self._policy(self._request, permission) is True
        return self._known[permission]

    @property
    def operates(self) -> bool:
        """Whether they may replay and purge."""
        return self.may(OPERATE)

    @property
    def sees_payload(self) -> bool:
        """Whether they may see the arguments of tasks."""
        return self.may(PAYLOAD)

    @property
    def name(self) -> str:
        """As the audit writes it; empty for somebody who has not logged in."""
        return str(user_of(self._request).get_username())

    @property
    def is_known(self) -> bool:
        """Whether they have logged in."""
        return bool(user_of(self._request).is_authenticated)

    @property
    def lacks_staff(self) -> bool:
        """Whether the rule by default closes all to them, whatever they are permitted."""
        by_default = self._policy is staff_with_permission
        return by_default and not getattr(user_of(self._request), "is_staff", False)


def policy() -> Policy:
    """The rule in force: the project's own, or Django's permissions."""
    path = conf.current().dashboard_policy
    return import_string(path) if path else staff_with_permission


def staff_with_permission(request: HttpRequest, permission: str) -> bool:
    """The rule by default: members of the staff who have the permission."""
    user = user_of(request)
    return bool(user.is_active and user.is_staff and user.has_perm(permission))


def user_of(request: HttpRequest) -> AnonymousUser:
    """Who asks, also where nobody can log in."""
    return getattr(request, "user", None) or AnonymousUser()


def to_login(request: HttpRequest) -> HttpResponseRedirect:
    """To where people of this project log in, and from there back."""
    return redirect_to_login(request.get_full_path(), _login_url())


def _login_url() -> str:
    if global_settings.LOGIN_URL != settings.LOGIN_URL:
        return resolve_url(settings.LOGIN_URL)
    try:
        return reverse("admin:login")
    except NoReverseMatch:
        return resolve_url(settings.LOGIN_URL)
