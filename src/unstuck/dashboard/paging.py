"""Lists by key: a page costs the same wherever it is, and nobody counts a million rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.db.models import Model, Q, QuerySet

M = TypeVar("M", bound=Model)
Key = tuple[datetime, int]

PAGE_SIZE = 50
MOST_COUNTED = 10_000
MOST_READ = 10_000
"""Rows that one page adds up, or reads for a text that no index finds."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are, counted so far as is quick."""

    number: int
    capped: bool = False
    """Whether there are more than that."""


@dataclass(frozen=True, slots=True)
class Slice(Generic[M]):
    """Some rows of a list, newest first, and the keys of those around them."""

    rows: list[M]
    newer: str = ""
    older: str = ""
    read_to: datetime | None = None
    """Where reading row by row has stopped, with more to read."""


def count(found: QuerySet[Any], most: int = MOST_COUNTED) -> Count:
    """Count no further than ``most``."""
    number = found.order_by()[: most + 1].count()
    return Count(min(number, most), number > most)


def count_read(found: QuerySet[Any], at: str, slow: Q) -> Count:
    """Count those that fit ``slow`` as well, among the newest that one page reads."""
    if not slow:
        return count(found)
    read, more = newest(found, at)
    return Count(read.filter(slow).count(), more)


def newest(found: QuerySet[M], at: str) -> tuple[QuerySet[M], bool]:
    """So many of them as a page reads, and whether there are more.

    They are those since an instant, so that an index has found them when it has found that.
    """
    stop = _stop(found.order_by(f"-{at}", "-pk"), at)
    if stop is None:
        return found.order_by(), False
    return found.order_by().filter(**{f"{at}__gte": stop[0]}), True


def slice_of(
    found: QuerySet[M],
    at: str,
    query: Mapping[str, str],
    size: int = PAGE_SIZE,
    *,
    slow: Q | None = None,
) -> Slice[M]:
    """The rows that ``older`` or ``newer`` in the URL ask for; the newest without.

    A key that is none gives the newest. Where rows are to fit ``slow`` as well, which is
    to be read row by row, ``MOST_READ`` are read, and the next page goes on from there.
    """
    older, newer = _key(query.get("older", "")), _key(query.get("newer", ""))
    key, backwards = newer or older, newer is not None
    side, order = ("gt", (at, "pk")) if backwards else ("lt", (f"-{at}", "-pk"))
    found = found.order_by(*order)
    if key:
        found = found.filter(_beyond(at, side, key))
    stop = _stop(found, at) if slow else None
    if slow:
        found = found.filter(slow, _upto(at, side, stop) if stop else Q())
    rows = list(found[: size + 1])
    more, rows = len(rows) > size, rows[:size]
    ahead = _key_of(rows[-1], at) if more else stop
    back = None
    if key:
        back = _key_of(rows[0], at) if rows else _again(key, backwards=backwards)
    read_to = stop[0] if stop and not more else None
    if backwards:
        return Slice(rows[::-1], _text(ahead), _text(back), read_to)
    return Slice(rows, _text(back), _text(ahead), read_to)


def _stop(found: QuerySet[Any], at: str) -> Key | None:
    """The last row that one page reads; ``None`` if there is none after it."""
    rows = list(found.values_list(at, "pk")[MOST_READ - 1 : MOST_READ + 1])
    return rows[0] if len(rows) > 1 else None


def _beyond(at: str, side: str, key: Key) -> Q:
    moment, pk = key
    # The first condition is the one that an index serves.
    return Q(**{f"{at}__{side}e": moment}) & (
        Q(**{f"{at}__{side}": moment}) | Q(**{at: moment, f"pk__{side}": pk})
    )


def _upto(at: str, side: str, key: Key) -> Q:
    """On the way to ``side``, up to this row and with it."""
    other = "lt" if side == "gt" else "gt"
    return _beyond(at, other, _again(key, backwards=side == "gt"))


def _again(key: Key, *, backwards: bool) -> Key:
    """Beyond this one, the other way, is the row itself and what came before."""
    moment, pk = key
    return moment, pk + 1 if backwards else pk - 1


def _key_of(row: Model, at: str) -> Key:
    return getattr(row, at), row.pk


def _text(key: Key | None) -> str:
    return f"{key[0].isoformat()}_{key[1]}" if key else ""


def _key(text: str) -> Key | None:
    moment, _, pk = text.rpartition("_")
    try:
        at = datetime.fromisoformat(moment)
        number = int(pk)
    except ValueError:
        return None
    fits = at.tzinfo is not None and 0 <= number < 2**63
    return (at, number) if fits else None
