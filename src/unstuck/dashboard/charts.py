"""Charts: the numbers for a script to draw, and the same for a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils.translation import gettext as _

from unstuck.core.histogram import Histogram
from unstuck.dashboard.queries.minutes import PERCENTILES, History
from unstuck.dashboard.queries.samples import Mark, Queue
from unstuck.dashboard.window import Window

COLOURS = ("accent", "amber", "red", "green", "violet")
"""As the style sheet calls them."""

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """A line, or bars."""

    label: str
    values: Values
    colour: str
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Some series over the same time, in the same unit."""

    title: str
    kind: str
    """``count``, ``seconds`` or ``bytes``."""
    window: Window
    series: Sequence[Series]
    marks: Sequence[Mark] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(any(series.values) for series in self.series)

    @property
    def as_json(self) -> str:
        """For the script; never NaN."""
        return json.dumps(
            {
                "times": self.window.times,
                "step": self.window.step,
                "kind": self.kind,
                "time": _("Time"),
                "series": [
                    {
                        "label": series.label,
                        "values": [_short(value) for value in series.values],
                        "colour": series.colour,
                        "bars": series.bars,
                    }
                    for series in self.series
                ],
                "marks": [
                    {"at": mark.at.timestamp(), "label": mark.label}
                    for mark in self.marks
                ],
            },
            allow_nan=False,
            separators=(",", ":"),
        )

    @property
    def table(self) -> Iterator[tuple[datetime, list[float | None]]]:
        """A row for each time of which something is known, the newest first."""
        columns = [series.values for series in self.series]
        rows = list(zip(self.window.times, *columns, strict=True))
        for at, *values in reversed(rows):
            if any(values):
                yield datetime.fromtimestamp(at, UTC), values


def of_runs(
    history: History, window: Window, marks: Sequence[Mark] = ()
) -> list[Chart]:
    """Throughput, run times and waits."""
    buckets = history.buckets
    throughput = (
        Series(_("Runs"), [one.runs for one in buckets], "accent", bars=True),
        Series(
            _("Failed, hit a limit or lost"),
            [one.troubled for one in buckets],
            "red",
            bars=True,
        ),
    )
    ran, waited = [b.runtimes for b in buckets], [b.waits for b in buckets]
    return [
        Chart(_("Runs"), "count", window, throughput, marks),
        Chart(_("Run time"), "seconds", window, _lines(ran), marks),
        Chart(_("Wait"), "seconds", window, _lines(waited), marks),
    ]


def of_growth(history: History, window: Window) -> Chart:
    """What a run leaves in the memory of its process, on average."""
    values = [one.growth / one.runs if one.runs else None for one in history.buckets]
    series = Series(_("Growth per run"), values, "violet")
    return Chart(_("Memory growth per run"), "bytes", window, [series])


def of_queues(
    queues: Sequence[Queue], window: Window, marks: Sequence[Mark] = ()
) -> list[Chart]:
    """What waits, and for how long the first of it has."""
    waiting, oldest = (
        [
            Series(queue.name, values, colour)
            for queue, values, colour in zip(queues, each, COLOURS, strict=False)
        ]
        for each in (
            [queue.waiting for queue in queues],
            [queue.oldest for queue in queues],
        )
    )
    return [
        Chart(_("Waiting in queues"), "count", window, waiting, marks),
        Chart(_("The oldest that waits"), "seconds", window, oldest, marks),
    ]


def _lines(histograms: Sequence[Histogram]) -> list[Series]:
    values = zip(*(one.percentiles(PERCENTILES) for one in histograms), strict=True)
    return [
        Series(f"p{percent}", line, colour)
        for percent, line, colour in zip(PERCENTILES, values, COLOURS, strict=False)
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
