"""Letters as rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction

from unstuck.fields import Fields
from unstuck.letters.letter import Letter
from unstuck.letters.redact import clean, storable
from unstuck.letters.shown import shown_arguments
from unstuck.models import DeadLetter
from unstuck.recorder.database import insert_new, is_of_the_row, writing
from unstuck.recorder.sound import identity, instant, number, short

SAME_DEATH, SKEW = timedelta(hours=1), timedelta(minutes=1)
"""How long before its drop, or after it by other clocks, the same message was buried."""

logger = logging.getLogger(__name__)


def store(app: Any, letters: Sequence[Letter]) -> list[Letter]:
    """Write letters to the database, each once however often it is delivered.

    What a node has buried and could not acknowledge any more the broker may have dropped
    afterwards: that is one death and not two. Returns after the commit, with those that no
    row could be made of: none, as far as anybody knows. Raises what a database raises that
    takes no letter; then none of these is acknowledged.
    """
    refused = _store(app, [letter for letter in letters if not letter.dropped])
    dropped = [letter for letter in letters if letter.dropped]
    if dropped:
        with writing() as alias:
            alone = [letter for letter in dropped if not _is_buried(alias, letter)]
        refused += _store(app, alone)
    return refused


def _is_buried(alias: str, letter: Letter) -> bool:
    """Whether a node has buried this very message a short time before."""
    if not letter.task_id:
        return False
    buried_at = instant(letter.buried_at)
    rows = DeadLetter.objects.using(alias).filter(
        task_id=short(letter.task_id),
        attempts=letter.attempts,
        buried_at__range=(buried_at - SAME_DEATH, buried_at + SKEW),
    )
    others = rows.exclude(letter_id=identity(letter.id)).values_list("message")
    return any(bytes(body) == letter.message.body for (body,) in others)


def _store(app: Any, letters: Sequence[Letter]) -> list[Letter]:
    if not letters:
        return []
    try:
        with writing() as alias:
            _write(alias, [_row(app, letter) for letter in letters])
            return []
    except Exception as error:
        if not is_of_the_row(error):
            raise
    # One odd letter must not keep the others out.
    with writing() as alias:
        return [each for each in letters if not _is_written_somehow(app, alias, each)]


def take_letters() -> None:
    """Raise what the database raises if it would take no letter just now."""
    with writing() as alias:
        # Of no row, but with all rights and locks that a letter needs.
        DeadLetter.objects.using(alias).filter(pk=0).update(cause="")


def _is_written_somehow(app: Any, alias: str, letter: Letter) -> bool:
    """Write one letter with what is known of it, or else without."""
    for make in (partial(_row, app), _bare_row):
        try:
            with transaction.atomic(using=alias):
                _write(alias, [make(letter)])
        except Exception as error:
            if not is_of_the_row(error):
                raise
            logger.exception(
                "A letter cannot be archived with all of it: %(fields)s",
                Fields(letter=letter.id),
            )
        else:
            return True
    return False


def _write(alias: str, rows: Sequence[DeadLetter]) -> None:
    insert_new(alias, "letter_id", rows)


def _bare_row(letter: Letter) -> DeadLetter:
    """The message and its reason, and nothing that could be odd."""
    return DeadLetter(
        letter_id=identity(letter.id),
        task_id=short(str(letter.task_id)),
        task_name=short(str(letter.task_name)),
        queue=short(str(letter.message.queue)),
        message=letter.message.body,
        content_type=short(str(letter.message.content_type)),
        content_encoding=short(str(letter.message.content_encoding)),
        reason=letter.reason.value,
        fingerprint=letter.reason.value,
        buried_at=instant(letter.buried_at),
    )


def _row(app: Any, letter: Letter) -> DeadLetter:
    shown = shown_arguments(app, letter.message, letter.task_name)
    args, kwargs = shown or (None, None)
    headers = dict(letter.message.headers)
    notes = headers.get("unstuck")
    replay_of = notes.get("replay_of") if isinstance(notes, dict) else None
    # Celery's headers repeat the arguments in clear.
    for name, value in (("argsrepr", args), ("kwargsrepr", kwargs)):
        if name in headers:
            headers[name] = repr(value)
    return DeadLetter(
        letter_id=identity(letter.id),
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
        runtime_seconds=number(letter.runtime_seconds),
        rss_bytes=letter.rss_bytes,
        cpu_seconds=number(letter.cpu_seconds),
        child_age_seconds=number(letter.child_age_seconds),
        buried_at=instant(letter.buried_at),
        replay_of=short(str(replay_of or "")),
    )
