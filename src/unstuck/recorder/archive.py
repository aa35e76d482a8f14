"""Letters as rows."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import InterfaceError, OperationalError, ProgrammingError, transaction

from unstuck import conf
from unstuck.letters.letter import Letter
from unstuck.letters.redact import clean, redacted_args, redacted_kwargs, storable
from unstuck.letters.replay import arguments_of
from unstuck.models import DeadLetter

SHORT = 255
SAME_DEATH, SKEW = timedelta(hours=1), timedelta(minutes=1)
"""How long before its drop, or after it by other clocks, the same message was buried."""

AWAY = (OperationalError, InterfaceError, ProgrammingError)
"""The database cannot be reached, or has no such table: every letter has to wait."""

logger = logging.getLogger(__name__)


def store(app: Any, letters: Sequence[Letter]) -> None:
    """Write letters to the database, each once however often it is delivered.

    What a node has buried and could not acknowledge any more the broker may have dropped
    afterwards: that is one death and not two. Returns after the commit. Raises Django's ``DatabaseError``; then none is written.
    """
    _store(app, [letter for letter in letters if not letter.dropped])
    dropped = [letter for letter in letters if letter.dropped]
    _store(app, [letter for letter in dropped if not _is_buried(letter)])


def _is_buried(letter: Letter) -> bool:
    """Whether a node has buried this very message a short time before."""
    if not letter.task_id:
        return False
    rows = DeadLetter.objects.using(conf.current().database).filter(
        task_id=short(letter.task_id),
        attempts=letter.attempts,
        buried_at__range=(letter.buried_at - SAME_DEATH, letter.buried_at + SKEW),
    )
    others = rows.exclude(letter_id=uuid.UUID(letter.id)).values_list("message")
    return any(bytes(body) == letter.message.body for (body,) in others)


def _store(app: Any, letters: Sequence[Letter]) -> None:
    try:
        _write([_row(app, letter) for letter in letters])
    except AWAY:
        raise
    except Exception:
        # One odd letter must not keep the others out.
        for letter in letters:
            _store_whatever_it_is(app, letter)


def _store_whatever_it_is(app: Any, letter: Letter) -> None:
    try:
        _write([_row(app, letter)])
    except AWAY:
        raise
    except Exception:
        logger.exception("Letter %s is archived without its details", letter.id)
        _write([_bare_row(letter)])


def _write(rows: Sequence[DeadLetter]) -> None:
    database = conf.current().database
    with transaction.atomic(using=database):
        DeadLetter.objects.using(database).bulk_create(rows, ignore_conflicts=True)


def _bare_row(letter: Letter) -> DeadLetter:
    """The message and its reason, and nothing that could be odd."""
    return DeadLetter(
        letter_id=uuid.UUID(letter.id),
        task_id=short(str(letter.task_id)),
        task_name=short(str(letter.task_name)),
        queue=short(letter.message.queue),
        message=letter.message.body,
        content_type=short(letter.message.content_type),
        content_encoding=short(letter.message.content_encoding),
        reason=letter.reason.value,
        fingerprint=letter.reason.value,
        buried_at=letter.buried_at,
    )


def _row(app: Any, letter: Letter) -> DeadLetter:
    args, kwargs = _shown_arguments(app, letter)
    headers = dict(letter.message.headers)
    notes = headers.get("unstuck")
    replay_of = notes.get("replay_of") if isinstance(notes, dict) else None
    # Celery's headers repeat the arguments in clear.
    for name, shown in (("argsrepr", args), ("kwargsrepr", kwargs)):
        if name in headers:
            headers[name] = repr(shown)
    return DeadLetter(
        letter_id=uuid.UUID(letter.id),
        task_id=short(letter.task_id),
        task_name=short(letter.task_name),
        queue=short(letter.message.queue),
        args=storable(args),
        kwargs=storable(kwargs),
        message=letter.message.body,
        content_type=short(letter.message.content_type),
        content_encoding=short(letter.message.content_encoding),
        headers=storable(headers),
        properties=storable(letter.message.properties),
        reason=letter.reason.value,
        cause=clean(letter.cause),
        exception_type=short(letter.exception_type),
        exception_message=clean(letter.exception_message),
        traceback=clean(letter.traceback),
        stack=clean(letter.stack),
        soft_stack=clean(letter.soft_stack),
        waiting_for=clean(letter.waiting_for),
        fingerprint=short(letter.fingerprint),
        attempts=letter.attempts,
        deliveries=letter.deliveries,
        node=short(letter.node),
        pid=letter.pid,
        runtime_seconds=letter.runtime_seconds,
        rss_bytes=letter.rss_bytes,
        cpu_seconds=letter.cpu_seconds,
        child_age_seconds=letter.child_age_seconds,
        buried_at=letter.buried_at,
        replay_of=short(str(replay_of or "")),
    )


def _shown_arguments(app: Any, letter: Letter) -> tuple[Any, Any]:
    arguments = arguments_of(app, letter.message)
    if arguments is None:
        return None, None
    names = conf.current().redact
    task = app.tasks.get(letter.task_name)
    args, kwargs = arguments
    return redacted_args(args, task, names), redacted_kwargs(kwargs, names)


def short(text: str) -> str:
    """Text that fits a column for names."""
    return clean(text)[:SHORT]
