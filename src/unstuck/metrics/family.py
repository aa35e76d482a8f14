"""A metric, and what was read of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """As Prometheus calls them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: all that is known of it before anything is read."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    """As fine as it gets. Some are left out where the project wants fewer series."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram has counted."""

    bounds: Sequence[float]
    counts: Sequence[int]
    """By bucket, each for itself; the last one has no bound."""
    total: float
    """Of all that was counted, together."""


class Point(NamedTuple):
    """One series: the values of its labels, and its own."""

    labels: tuple[str, ...]
    value: float | Distribution


@dataclass(frozen=True, slots=True)
class Reading:
    """What a metric says now."""

    family: Family
    labels: tuple[str, ...]
    """Those of the family that are in force."""
    points: Sequence[Point]
