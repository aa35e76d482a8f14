"""How a target is told: by a POST, a mail or a call. Raises whatever comes of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from django.core import mail
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.module_loading import import_string

from unstuck.recorder.alerts.message import Message

ANSWER_SECONDS = 5.0
"""So long a server may say nothing."""

MAIL_SECONDS = 15.0
"""So long a server of mail may, where the settings do not say it: some greet late on
purpose."""

SUBJECT_LENGTH = 150


class _NoRedirect(HTTPRedirectHandler):
    """A POST that is sent elsewhere would arrive as a GET, without what it says."""

    def redirect_request(self, *_: Any) -> None:
        return None


def send(to: str, message: Message) -> None:
    """Tell a target; returns when it has taken the message."""
    if to.startswith(("http://", "https://")):
        _post(to, message)
    elif to.startswith("mailto:"):
        _mail(to.removeprefix("mailto:").split(","), message)
    else:
        import_string(to)(message)


def _post(url: str, message: Message) -> None:
    body = json.dumps(message, cls=DjangoJSONEncoder).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "unstuck"}
    request = Request(url, body, headers, method="POST")  # noqa: S310 - checked before
    try:
        build_opener(_NoRedirect).open(request, timeout=ANSWER_SECONDS).close()
    except HTTPError as error:
        error.close()
        raise


def _mail(addresses: list[str], message: Message) -> None:
    subject = " ".join(message["title"].split())[:SUBJECT_LENGTH]
    mailer = _mailer()
    if getattr(mailer, "timeout", MAIL_SECONDS) is None:
        # Django's default is to wait for ever.
        mailer.timeout = MAIL_SECONDS
    text = mail.EmailMessage(f"[unstuck] {subject}", message["text"], None, addresses)
    mailer.send_messages([text])


def _mailer() -> Any:
    """What sends mail for this project: the default one of Django 6.1, which knows the
    settings of before as well; there ``get_connection()`` is deprecated."""
    mailers: Any = getattr(mail, "mailers", None)
    return mail.get_connection() if mailers is None else mailers.default
