"""What is stored, as people read it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from unstuck.core.histogram import Histogram
from unstuck.models import DeadLetter, TaskRun


def block(text: str) -> SafeString | str:
    """Text of several lines as it is, escaped."""
    if not text:
        return "-"
    return format_html('<pre class="unstuck-block">{}</pre>', text)


def block_of(value: Any) -> SafeString | str:
    """JSON for people, as such text."""
    if value is None:
        return block("could not be read")
    return block(json.dumps(value, indent=2, ensure_ascii=False))


def minute_of(moment: datetime) -> str:
    """When, short enough for a column."""
    return date_format(localtime(moment), "Y-m-d H:i")


def mebibytes(size: int | None) -> str:
    """An amount of memory for people."""
    return f"{size / 2**20:.0f} MiB" if size else "-"


def percentiles(text: str) -> str:
    """Of a histogram, for people."""
    histogram = Histogram.of([text])
    return ", ".join(seconds(histogram.percentile(part)) for part in (50, 95, 99))


def seconds(duration: float | None) -> str:
    """A duration for people."""
    return "-" if duration is None else f"{duration:.3g} s"


def exception_of(ended: DeadLetter | TaskRun) -> str:
    """What was raised, on one line; empty when nothing was."""
    return together(ended.exception_type, ended.exception_message)


def together(exception_type: str, says: str) -> str:
    """An exception on one line, without what is empty."""
    return ": ".join(part for part in (exception_type, says) if part)


def short(text: str) -> str:
    """As much of it as a column has room for."""
    return Truncator(text or "-").chars(80)
