"""The fleet's metrics, for Prometheus: closed to who has neither the token nor a permission."""

from __future__ import annotations

import logging
import threading
import time
from http import HTTPStatus

from django.db import DatabaseError, InterfaceError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe

from unstuck import conf
from unstuck.core.errors import SettingsError
from unstuck.dashboard import patience
from unstuck.dashboard.access import Viewer
from unstuck.dashboard.headers import secured
from unstuck.dashboard.page import RETRY_AFTER_SECONDS
from unstuck.dashboard.queries import fleet
from unstuck.dashboard.reading import NotRead, why_of
from unstuck.dashboard.views.queues import dead_queue
from unstuck.metrics.text import CONTENT_TYPE, to_text

LOOKS = "unstuck.view_node"
SCHEME = "bearer"
KEPT_SECONDS = 5.0
"""However many ask, the database is asked that often by a process."""

TURN_SECONDS = 5.0
"""How long one waits for another one that reads already."""

CLOSED = (
    "Closed. Send the header 'Authorization: Bearer TOKEN' with UNSTUCK['METRICS_TOKEN'], "
    f"or log in as staff with the permission {LOOKS}.\n"
)
WRONG = "Closed: the setting UNSTUCK is wrong. Run: python manage.py check\n"

logger = logging.getLogger(__name__)


@transaction.non_atomic_requests
@require_safe
def metrics(request: HttpRequest) -> HttpResponseBase:
    """What the database knows of the whole fleet."""
    with patience.bounded():
        return secured(_answer(request))


def _answer(request: HttpRequest) -> HttpResponse:
    try:
        if not _may_look(request):
            return _words(HTTPStatus.FORBIDDEN, CLOSED)
        return HttpResponse(_KEPT.text(), content_type=CONTENT_TYPE)
    except NotRead as error:
        return _unreadable(error.why)
    except (DatabaseError, InterfaceError) as error:
        # Who asks could not be found out.
        logger.warning("The metrics could not use the database", exc_info=True)
        return _unreadable(why_of(error))
    except (SettingsError, ImportError):
        logger.exception("The metrics stay closed")
        return _words(HTTPStatus.SERVICE_UNAVAILABLE, WRONG)


def _may_look(request: HttpRequest) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    token = conf.current().metrics_token
    if token and scheme.lower() == SCHEME:
        return constant_time_compare(given.strip(), token)
    return Viewer(request).may(LOOKS)


def _unreadable(why: str) -> HttpResponse:
    """Prometheus takes this for a scrape that failed: ``up`` is 0, and nothing is old."""
    text = f"The database of the fleet cannot be read: {why}.\n"
    response = _words(HTTPStatus.SERVICE_UNAVAILABLE, text)
    response["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _words(status: HTTPStatus, text: str) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")


def _read() -> str | NotRead:
    try:
        return to_text(fleet.readings(dead_queue()))
    except NotRead as error:
        return error


class _Kept:
    """The last answer, for a moment. One asks the database, others wait for it."""

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._answer: str | NotRead = ""
        self._until = 0.0

    def text(self) -> str:
        """As it was within the last seconds. Raises ``NotRead``."""
        if not self._reading.acquire(timeout=TURN_SECONDS):
            raise NotRead("slow")
        try:
            if time.monotonic() >= self._until:
                self._answer = _read()
                self._until = time.monotonic() + KEPT_SECONDS
            answer = self._answer
        finally:
            self._reading.release()
        if isinstance(answer, NotRead):
            raise answer
        return answer

    def forget(self) -> None:
        """Ask anew the next time."""
        self._until = 0.0


_KEPT = _Kept()
