"""How the pages of the dashboard write what is in our tables."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from html import escape

from django import template
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from unstuck.core.histogram import Histogram
from unstuck.dashboard.charts import Chart
from unstuck.dashboard.frames import by_thread
from unstuck.dashboard.paging import Count
from unstuck.dashboard.queries.minutes import PERCENTILES
from unstuck.dashboard.words import (
    ACTIONS,
    CONDITIONS,
    ENDINGS,
    HAPPENED,
    PLANNED,
    REASONS,
)

register = template.Library()
register.filter(by_thread)

MINUTE, HOUR, DAY = 60, 3_600, 86_400
KIB, MIB = 2**10, 2**20

UNITS = (
    (2 * DAY, DAY, "d"),
    (2 * HOUR, HOUR, "h"),
    (2 * MINUTE, MINUTE, "min"),
    (1, 1, "s"),
)
"""From how many seconds on a duration is written in which unit."""

MOST_MOMENTS = 1_000
"""That are kept as written: the charts of a page name the same ones."""

DIGITS = 2
"""Of a percentile: a histogram is a sixteenth off, and knows no third one."""


@register.simple_tag
def page_link(request: HttpRequest, which: str, key: str) -> str:
    """This page, with the rows that come before (``newer``) or after (``older``)."""
    query = request.GET.copy()
    for name in ("newer", "older"):
        query.pop(name, None)
    query[which] = key
    return f"?{query.urlencode()}"


@register.simple_tag
def changed(request: HttpRequest, name: str, value: str) -> str:
    """This page with one thing asked otherwise."""
    query = request.GET.copy()
    query[name] = value
    return f"?{query.urlencode()}"


@register.filter
def moment(at: datetime | None) -> SafeString | str:
    """An instant in UTC; a script writes it in the zone of whoever looks."""
    if at is None:
        return "–"
    return _moment(
        (at if timezone.is_aware(at) else timezone.make_aware(at)).astimezone(UTC)
    )


@lru_cache(MOST_MOMENTS)
def _moment(utc: datetime) -> SafeString:
    return format_html(
        '<time datetime="{}">{}</time>',
        utc.isoformat(timespec="milliseconds"),
        f"{utc:%Y-%m-%d %H:%M:%S} UTC",
    )


@register.filter
def ago(at: datetime | None) -> str:
    """How long ago, in one unit."""
    if at is None:
        return "–"
    now = timezone.now()
    passed = max(0.0, (now - at).total_seconds())
    if passed < MINUTE:
        return _("%(count)s s ago") % {"count": int(passed)}
    if passed < HOUR:
        return _("%(count)s min ago") % {"count": int(passed // MINUTE)}
    if passed < DAY:
        return _("%(count)s h ago") % {"count": int(passed // HOUR)}
    return _("%(count)s d ago") % {"count": int(passed // DAY)}


@register.filter
def reason(value: str) -> str:
    """Why it was buried, in words."""
    return str(REASONS.get(value, value))


@register.filter
def happened(value: str) -> str:
    """What letters of a reason do, before the place where they do it."""
    return str(HAPPENED.get(value, value))


@register.filter
def condition(value: str) -> str:
    """How a node is, in words."""
    return str(CONDITIONS.get(value, value))


@register.filter
def ending(value: str) -> str:
    """How a run ended, in words."""
    return str(ENDINGS.get(value, value))


@register.filter
def action(value: str) -> str:
    """What somebody did, in words."""
    return str(ACTIONS.get(value, value))


@register.filter
def planned(value: str) -> str:
    """Why a run waits for its time, in words."""
    return str(PLANNED.get(value, value))


@register.filter
def duration(seconds: float | None) -> str:
    """A duration for people."""
    return "–" if seconds is None else f"{seconds:.3g} s"


@register.filter
def lasting(seconds: float | None, digits: int = 3) -> str:
    """A duration from milliseconds to days, as charts write it too."""
    if seconds is None:
        return "–"
    for least, length, unit in UNITS:
        if seconds >= least:
            return f"{float(f'{seconds / length:.{digits}g}'):g} {unit}"
    return f"{float(f'{seconds * 1000:.{digits}g}'):g} ms"


@register.filter
def percentiles(histogram: Histogram) -> list[str]:
    """How long so many percent took at most: one for each of ``PERCENTILES``."""
    return [lasting(value, DIGITS) for value in histogram.percentiles(PERCENTILES)]


@register.filter
def percents(value: float) -> str:
    """A share, with more digits the smaller it is."""
    return f"{value:.2g} %" if 0 < value < 10 else f"{value:.0f} %"


@register.filter
def quantity(value: float | None, kind: str) -> str:
    """A number of a chart."""
    if value is None or kind == "seconds":
        return lasting(value)
    return size(round(value)) if kind == "bytes" else f"{value:,.0f}"


@register.filter
def numbers(chart: Chart) -> SafeString:
    """The rows of a chart's table. Of a thousand cells a template would take too long."""
    rows = []
    for at, values in chart.table:
        cells = [f"<td>{escape(quantity(value, chart.kind))}</td>" for value in values]
        rows.append(f'<tr><th scope="row">{moment(at)}</th>{"".join(cells)}</tr>')
    return mark_safe("".join(rows))  # noqa: S308 - each part is escaped, or made here


@register.filter
def span(seconds: float | None) -> str:
    """A longer duration for people, in its two largest units."""
    if seconds is None:
        return "–"
    whole = int(max(0.0, seconds))
    parts = (
        (whole // DAY, _("%(count)s d")),
        (whole % DAY // HOUR, _("%(count)s h")),
        (whole % HOUR // MINUTE, _("%(count)s min")),
        (whole % MINUTE, _("%(count)s s")),
    )
    first = next((n for n, (count, _unit) in enumerate(parts) if count), len(parts) - 1)
    largest = [
        unit % {"count": count} for count, unit in parts[first : first + 2] if count
    ]
    return " ".join(largest) or parts[-1][1] % {"count": 0}


@register.filter
def size(number: int | None) -> str:
    """An amount of bytes for people."""
    if number is None:
        return "–"
    if abs(number) < KIB:
        return f"{number} B"
    if abs(number) < MIB:
        return f"{number / KIB:.1f} KiB"
    return f"{number / MIB:.0f} MiB"


@register.filter
def counted(count: Count) -> str:
    """A number that may be only the beginning."""
    return f"{count.number:,}{'+' if count.capped else ''}"


@register.filter
def share(part: int, whole: int) -> int:
    """Per cent, for a bar."""
    return round(100 * part / whole) if whole else 0
