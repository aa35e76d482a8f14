"""The CSV in which a partner sends orders: how it is made up, and how it is read.

One order is one line. A file of some thousand lines always has a few broken ones;
each costs itself and no other: a line is read on its own, so even a quote that is
never closed swallows nothing. No line is dropped in silence: it becomes an
``OrderRow`` or a ``BrokenRow`` that says what is wrong with it.
"""

import csv
import io
import random
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from shop.catalog import Article
from shop.money import cents_from_text

COLUMNS = (
    "reference",
    "ordered_at",
    "customer",
    "email",
    "sku",
    "quantity",
    "unit_price",
)
BROKEN_SHARE = 0.02
MAX_QUANTITY = 1000

_REFERENCE = re.compile(r"[A-Z0-9][A-Z0-9-]{2,39}", re.ASCII)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


class Problem(StrEnum):
    """What can be wrong with a line."""

    ENCODING = "encoding"
    QUOTES = "quotes"
    COLUMNS = "columns"
    REFERENCE = "reference"
    DATE = "date"
    CUSTOMER = "customer"
    EMAIL = "email"
    SKU = "sku"
    QUANTITY = "quantity"
    PRICE = "price"
    DUPLICATE = "duplicate"
    """Its reference is taken; only the database knows that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """One good line."""

    line: int
    reference: str
    ordered_at: datetime
    customer: str
    email: str
    sku: str
    quantity: int
    unit_price_cents: int
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRow:
    """One broken line: where it stands, what is wrong, and what it says."""

    line: int
    problem: Problem
    detail: str
    raw: str


def parse_lines(
    lines: Iterable[tuple[int, bytes]], skus: Collection[str]
) -> tuple[list[OrderRow], list[BrokenRow]]:
    """Sort numbered *lines* into good and broken ones; blank lines are neither."""
    good: list[OrderRow] = []
    broken: list[BrokenRow] = []
    for number, raw in lines:
        if not raw.strip():
            continue
        row = parse_line(number, raw, skus)
        if isinstance(row, OrderRow):
            good.append(row)
        else:
            broken.append(row)
    return good, broken


def parse_line(line: int, raw: bytes, skus: Collection[str]) -> OrderRow | BrokenRow:
    """Read one line, or say what is wrong with it; never raises for bad data."""
    # The report is stored, and PostgreSQL stores no NUL in a text.
    text = raw.decode(errors="replace").replace("\0", "\ufffd").rstrip("\r\n")
    try:
        fields = _fields(text)
        values = {
            name: _read(problem, reader, fields[column])
            for name, column, problem, reader in _READERS
        }
        values["sku"] = _read(Problem.SKU, _known(skus), fields["sku"])
    except _Broken as error:
        return BrokenRow(
            line=line, problem=error.problem, detail=str(error), raw=text[:500]
        )
    return OrderRow(line=line, raw=text, **values)


class _Broken(Exception):
    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem


def _fields(text: str) -> dict[str, str]:
    if "\ufffd" in text:
        raise _Broken(Problem.ENCODING, "not UTF-8")
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise _Broken(Problem.QUOTES, str(error)) from None
    if len(fields) != len(COLUMNS):
        raise _Broken(
            Problem.COLUMNS, f"{len(fields)} columns instead of {len(COLUMNS)}"
        )
    return {name: field.strip() for name, field in zip(COLUMNS, fields, strict=True)}


def _read(problem: Problem, reader: Callable[[str], Any], text: str) -> Any:
    try:
        return reader(text)
    except ValueError as error:
        raise _Broken(problem, str(error)) from None


def _reference(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise ValueError(f"{text!r} is not a reference")
    return text


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return instant


def _customer(text: str) -> str:
    if not text or len(text) > 100:
        raise ValueError("a name has 1 to 100 characters")
    return text


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text) or len(text) > 200:
        raise ValueError(f"{text!r} is not an e-mail address")
    return text.lower()


def _quantity(text: str) -> int:
    # int() alone would also take "1_000" and digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number")
    quantity = int(text[:10])
    if not 1 <= quantity <= MAX_QUANTITY:
        raise ValueError(f"{quantity} is not between 1 and {MAX_QUANTITY}")
    return quantity


def _known(skus: Collection[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in skus:
            raise ValueError(f"no article {text!r}")
        return text

    return read


_READERS: tuple[tuple[str, str, Problem, Callable[[str], Any]], ...] = (
    ("reference", "reference", Problem.REFERENCE, _reference),
    ("ordered_at", "ordered_at", Problem.DATE, _instant),
    ("customer", "customer", Problem.CUSTOMER, _customer),
    ("email", "email", Problem.EMAIL, _email),
    ("quantity", "quantity", Problem.QUANTITY, _quantity),
    ("unit_price_cents", "unit_price", Problem.PRICE, cents_from_text),
)


# How a partner's file comes to be, broken lines included.

_FIRST_NAMES = ("Ada", "Björn", "Chloé", "Dmitri", "Eun-ji", "Fatma", "Gül", "Zoë")
_LAST_NAMES = ("Ångström", "Brontë", "de la Cruz", "Kim, Jr.", "O'Neill", "Müller")


def order_csv(
    *, seed: int, rows: int, articles: Sequence[Article], until: datetime
) -> bytes:
    """Return a file of *rows* orders, the same one for the same arguments.

    The orders were placed in the half year before *until*. About two in a hundred
    are broken, each in one of the ways that the partner's clerks have found so far.
    """
    rng = random.Random(seed)
    lines = [",".join(COLUMNS).encode()]
    previous = _order(rng, seed, 0, articles, until)
    for number in range(1, rows + 1):
        fields = _order(rng, seed, number, articles, until)
        if rng.random() < BROKEN_SHARE:
            lines.append(rng.choice(_BREAKAGES)(fields, previous))
        else:
            lines.append(_encode(fields))
            previous = fields
    return b"\n".join(lines) + b"\n"


def _order(
    rng: random.Random,
    seed: int,
    number: int,
    articles: Sequence[Article],
    until: datetime,
) -> dict[str, str]:
    article = rng.choice(articles)
    first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
    ordered_at = until - timedelta(seconds=rng.randrange(182 * 24 * 3600))
    return {
        "reference": f"P{seed}-{number:05}",
        "ordered_at": ordered_at.isoformat(timespec="seconds"),
        "customer": f"{first} {last}",
        "email": f"customer{rng.randrange(400):03}@example.com",
        "sku": article.sku,
        "quantity": str(rng.choice((1, 1, 1, 2, 2, 3, 6, 12))),
        "unit_price": f"{Decimal(article.price_cents) / 100:.2f}",
    }


def _encode(fields: dict[str, str], encoding: str = "utf-8") -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields[name] for name in COLUMNS)
    return text.getvalue().encode(encoding)


def _with(**changes: str) -> Callable[[dict[str, str], dict[str, str]], bytes]:
    return lambda fields, previous: _encode(fields | changes)


_BREAKAGES: tuple[Callable[[dict[str, str], dict[str, str]], bytes], ...] = (
    lambda fields, previous: _encode(fields | {"customer": "Zoë"}, "latin-1"),
    lambda fields, previous: _encode(fields).replace(b",", b',"', 1),
    lambda fields, previous: _encode(fields).rsplit(b",", 2)[0],
    lambda fields, previous: _encode(fields).replace(b",", b";"),
    lambda fields, previous: _encode(fields | {"reference": previous["reference"]}),
    _with(reference=""),
    _with(ordered_at="2025-02-30T10:00:00+00:00"),
    _with(ordered_at="03/04/25 10:00"),
    _with(ordered_at="2025-03-04T10:00:00"),
    _with(customer=""),
    _with(email="call me"),
    _with(sku="TEA-999"),
    _with(quantity="-1"),
    _with(quantity="two"),
    _with(quantity="0"),
    _with(unit_price="1,299.00"),
    _with(unit_price="#REF!"),
    _with(unit_price="NaN"),
)
