"""The frame of every page: who may see it, and what is said when it cannot be shown."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib.messages import get_messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.context_processors import csrf
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from unstuck.core.errors import SettingsError
from unstuck.dashboard import access, patience
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.headers import secured
from unstuck.dashboard.navigation import links
from unstuck.dashboard.reading import NotRead, why_of
from unstuck.dashboard.words import PROBLEMS

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = "10"


View = Callable[..., HttpResponse]
"""Of the dashboard: it is called with the request, the ``Viewer`` and parts of the URL."""


def page(
    *needs: str, acts: bool = False
) -> Callable[[View], Callable[..., HttpResponseBase]]:
    """Make a view a page for those who have all the permissions ``needs``.

    Without any, one of those that open a model is enough. Only a view that ``acts``
    takes a POST, and that with a CSRF token, whatever middleware the project has.
    """
    methods = ("GET", "HEAD", "POST") if acts else ("GET", "HEAD")

    def decorate(view: View) -> Callable[..., HttpResponseBase]:
        @functools.wraps(view)
        def answer(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            if request.method not in methods:
                return _not_allowed(methods)
            return _answer(view, needs, request, kwargs)

        protected = csrf_protect(answer)

        # A report of an error must not carry the arguments of a task.
        @sensitive_post_parameters()
        @functools.wraps(view)
        def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            with patience.bounded(acts=request.method == "POST"):
                return secured(protected(request, **kwargs))

        # A statement that is cancelled must not break a transaction of the project's.
        return transaction.non_atomic_requests(guarded)

    return decorate


def show(
    request: HttpRequest,
    viewer: Viewer,
    template: str,
    context: dict[str, Any],
    status: int = HTTPStatus.OK,
) -> HttpResponse:
    """A page of ours: ``unstuck/TEMPLATE`` within the shell."""
    match = request.resolver_match
    current = (match.url_name or "") if match else ""
    around = {
        **csrf(request),
        "request": request,
        "viewer": viewer,
        "navigation": links(viewer, current),
        "problems": PROBLEMS,
        "messages": get_messages(request),
    }
    # Without the context processors of the project: they may ask the database.
    html = render_to_string(f"unstuck/{template}", {**around, **context})
    return HttpResponse(html, status=status)


def _answer(
    view: View, needs: tuple[str, ...], request: HttpRequest, kwargs: dict[str, Any]
) -> HttpResponse:
    try:
        viewer = Viewer(request)
        lacking = _lacking(viewer, needs)
        if lacking:
            return _refuse(request, viewer, lacking)
        try:
            return view(request, viewer, **kwargs)
        except PermissionDenied as error:
            return _refuse(request, viewer, (str(error),))
        except Http404 as error:
            return _problem(HTTPStatus.NOT_FOUND, _("Not here"), str(error))
    except NotRead as error:
        return _unreadable(error.why)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("The dashboard could not use the database", exc_info=True)
        return _unreadable(why_of(error))
    except (SettingsError, ImportError):
        logger.exception("The dashboard stays closed")
        text = _("The setting UNSTUCK is wrong. Run: python manage.py check")
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, _("Closed"), text)


def _lacking(viewer: Viewer, needs: tuple[str, ...]) -> tuple[str, ...]:
    if needs:
        return tuple(need for need in needs if not viewer.may(need))
    return () if any(map(viewer.may, access.LOOK)) else access.LOOK[:1]


def _refuse(
    request: HttpRequest, viewer: Viewer, lacking: tuple[str, ...]
) -> HttpResponse:
    if not viewer.is_known:
        return access.to_login(request)
    if viewer.lacks_staff:
        text = _(
            "It is for members of the staff, and %(name)s is none. Whoever runs this site "
            'sets "Staff status" in the admin.'
        )
        text %= {"name": viewer.name}
        return _problem(HTTPStatus.FORBIDDEN, _("Not for you"), text)
    text = _("It needs the permission %(permission)s. Whoever runs this site gives it.")
    text %= {"permission": ", ".join(lacking)}
    return _problem(HTTPStatus.FORBIDDEN, _("Not for you"), text)


def _unreadable(why: str) -> HttpResponse:
    title = _("Nothing to read from")
    response = _problem(HTTPStatus.SERVICE_UNAVAILABLE, title, str(PROBLEMS[why]))
    response["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _problem(status: HTTPStatus, title: str, text: str) -> HttpResponse:
    """A page that asks neither the database nor who looks."""
    context = {"title": title, "text": text, "status": status.value}
    return HttpResponse(
        render_to_string("unstuck/problem.html", context), status=status
    )


def _not_allowed(methods: tuple[str, ...]) -> HttpResponse:
    response = HttpResponse(status=HTTPStatus.METHOD_NOT_ALLOWED)
    response["Allow"] = ", ".join(methods)
    return response
