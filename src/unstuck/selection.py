"""Finding dead letters: by what an operator knows of them."""

from __future__ import annotations

import json
import re
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Max, Min, Q, QuerySet

from unstuck import conf
from unstuck.core.errors import NoSuchLetter
from unstuck.core.verdict import Reason
from unstuck.models import DeadLetter

SHORTEST_PREFIX = 4
"""A shorter one would fit by accident."""

SEARCHED = ("task_id", "task_name", "cause", "exception_type")

ROW_ID = re.compile(r"[0-9]{1,18}")
UUID_PREFIX = re.compile(r"[0-9a-f-]{4,36}", re.IGNORECASE)
UUID_DIGITS = 32
NAMED = 5
"""How many letters the message about an ambiguous id names."""


def letters() -> QuerySet[DeadLetter]:
    """All dead letters, in the database that the project chose for them."""
    return DeadLetter.objects.using(conf.current().database)


def select(
    *,
    task: str = "",
    reason: Reason | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    task_id: str = "",
    text: str = "",
) -> QuerySet[DeadLetter]:
    """The letters that fit everything that is said, newest first."""
    found = letters()
    if task:
        found = found.filter(task_name=task)
    if reason:
        found = found.filter(reason=reason.value)
    if since:
        found = found.filter(buried_at__gte=since)
    if until:
        found = found.filter(buried_at__lt=until)
    if task_id:
        found = found.filter(task_id__startswith=task_id)
    if text:
        found = found.filter(contains(text))
    return found


def contains(text: str, *, arguments: bool = True) -> Q:
    """Letters that have ``text`` in their ids, their ending or their shown arguments.

    Messages of exceptions quote arguments, and are searched with these only.
    """
    condition = Q()
    for field in SEARCHED:
        condition |= Q(**{f"{field}__icontains": text})
    if not arguments:
        return condition
    return condition | Q(exception_message__icontains=text) | in_arguments(text)


def in_arguments(text: str) -> Q:
    """Letters that have ``text`` in their shown arguments."""
    condition = Q()
    # Some databases keep JSON as it was written, some decode its escapes.
    for spelling in {text, json.dumps(text)[1:-1]}:
        condition |= Q(args__icontains=spelling) | Q(kwargs__icontains=spelling)
    return condition


def lettered(prefix: str) -> Q:
    """Letters whose letter id begins like this: a range, which an index serves."""
    digits = prefix.replace("-", "")
    if len(digits) > UUID_DIGITS:
        return Q(pk__in=())
    first, last = (UUID(digits.ljust(UUID_DIGITS, digit)) for digit in "0f")
    return Q(letter_id__range=(first, last))


def groups(found: QuerySet[DeadLetter]) -> list[dict[str, object]]:
    """The letters of the same trouble together, the largest group first."""
    rows = (
        found.order_by()
        .values("fingerprint", "task_name", "reason")
        .annotate(count=Count("pk"), first=Min("buried_at"), last=Max("buried_at"))
        .order_by("-count", "-last")
    )
    return [dict(row) for row in rows]


def find(text: str) -> DeadLetter:
    """The one letter with this row id, task id or letter id, or a prefix of the latter.

    Digits alone are a row id. Raises ``NoSuchLetter`` when there is none or more than one.
    """
    text = text.strip()
    for condition in _meanings(text):
        found = list(letters().filter(condition)[: NAMED + 1])
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(text, found)
    if rows := rows_begun_by(text):
        raise NoSuchLetter(
            f"There is no dead letter {text!r}: digits alone are a row id, and there is no "
            f"such row. Ids of the rows {rows} begin so: use the row id, or write more."
        )
    raise NoSuchLetter(
        f"There is no dead letter {text!r}. An id is a row id, a task id, a letter id "
        f"or the first {SHORTEST_PREFIX} or more characters of one of the latter two; "
        f"`unstuck dead list` shows them."
    )


def _meanings(text: str) -> list[Q]:
    """What an id may mean, the most certain first."""
    if ROW_ID.fullmatch(text):
        # Never a prefix: the row 12 may be gone, and another one must not stand in.
        return [Q(pk=int(text)), Q(task_id=text)]
    meanings = [Q(task_id=text)]
    if len(text) >= SHORTEST_PREFIX:
        prefix = Q(task_id__startswith=text)
        if UUID_PREFIX.fullmatch(text):
            prefix |= lettered(text)
        meanings.append(prefix)
    return meanings


def begun_by(digits: str) -> QuerySet[DeadLetter]:
    """Of what may be a row id: the letters whose task id or letter id begins so, too."""
    return letters().filter(begins_with(digits)).exclude(task_id=digits)


def begins_with(digits: str) -> Q:
    """Letters whose task id or letter id begins with what may be a row id as well."""
    if not ROW_ID.fullmatch(digits) or len(digits) < SHORTEST_PREFIX:
        return Q(pk__in=())
    # As a range: an index serves it.
    span = (UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))
    return Q(task_id__startswith=digits) | Q(letter_id__range=span)


def rows_begun_by(digits: str) -> str:
    """Some of those as text; empty if there is none."""
    rows = list(
        begun_by(digits).order_by("pk").values_list("pk", flat=True)[: NAMED + 1]
    )
    return ", ".join(map(str, rows[:NAMED])) + (", …" if len(rows) > NAMED else "")


def _ambiguous(text: str, found: list[DeadLetter]) -> NoSuchLetter:
    rows = ", ".join(str(letter.pk) for letter in found[:NAMED])
    more = ", …" if len(found) > NAMED else ""
    return NoSuchLetter(
        f"{text!r} fits several dead letters: the rows {rows}{more}. "
        f"Say more of it, or use the row id."
    )
