"""Money is an integer number of cents; text meets it only here."""

import re
from decimal import ROUND_HALF_UP, Decimal

VAT_PERCENT = 20

_PRICE = re.compile(r"\d{1,7}(\.\d{1,2})?", re.ASCII)


def cents_from_text(text: str) -> int:
    """Return the cents of a positive price such as ``12.5``, or raise ValueError.

    Only plain digits with at most two decimals are taken. ``1e3``, ``NaN`` and
    ``1,299.00`` are what a spreadsheet makes of a price, and guessing costs money.
    """
    if not _PRICE.fullmatch(text):
        raise ValueError(f"{text!r} is not a price")
    cents = int(Decimal(text) * 100)
    if cents == 0:
        raise ValueError("a price of zero")
    return cents


def euros(cents: int) -> str:
    """Return *cents* for people: ``€1,234.50``."""
    sign = "-" if cents < 0 else ""
    return f"{sign}€{Decimal(abs(cents)) / 100:,.2f}"


def vat_included(total_cents: int) -> int:
    """Return how much of a gross total is value added tax, rounded half up."""
    share = Decimal(VAT_PERCENT) / (100 + VAT_PERCENT)
    return int((total_cents * share).quantize(Decimal(1), rounding=ROUND_HALF_UP))
