"""Readings for OpenTelemetry: as its data points, sent by one of its exporters.

Not by instruments: there is none that could be given a histogram that was counted elsewhere.
So what a collector gets has the same names, types and buckets as what Prometheus scrapes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from unstuck import __version__
from unstuck.metrics.family import Distribution, Family, Kind, Point, Reading

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricExporter, MetricsData

GROUP = "opentelemetry_metrics_exporter"
"""The entry points by which exporters are found."""

OTLP = {
    "http/protobuf": ("otlp_proto_http",),
    "grpc": ("otlp_proto_grpc",),
    "": ("otlp_proto_http", "otlp_proto_grpc"),
}
"""What ``otlp`` means, by protocol; where none is said, what is installed."""

UNITS = {"_seconds": "s", "_bytes": "By"}


def exporter_of_environment() -> MetricExporter:
    """As the variables ``OTEL_…`` say. Raises ``LookupError`` if it is not installed."""
    name = os.environ.get("OTEL_METRICS_EXPORTER", "otlp").strip()
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    names = OTLP.get(protocol, ()) if name == "otlp" else (name,)
    for point in (p for n in names for p in entry_points(group=GROUP, name=n)):
        exporter: MetricExporter = point.load()()
        return exporter
    raise LookupError(
        f"No package is installed for OTEL_METRICS_EXPORTER={name!r} "
        f"(OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}). "
        f"Install opentelemetry-exporter-otlp, or name another one."
    )


def data_of(
    readings: Iterable[Reading], *, node: str, started_at: float
) -> MetricsData:
    """All of them, of this node, counted since it started."""
    from opentelemetry.sdk.metrics.export import (
        MetricsData,
        ResourceMetrics,
        ScopeMetrics,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    since, now = int(started_at * 1e9), time.time_ns()
    metrics = [_metric(reading, since, now) for reading in readings if reading.points]
    scope = InstrumentationScope("unstuck", __version__)
    resource = Resource.create({"service.instance.id": node})
    told = ScopeMetrics(scope=scope, metrics=metrics, schema_url="")
    return MetricsData([ResourceMetrics(resource, [told], schema_url="")])


def _metric(reading: Reading, since: int, now: int) -> Metric:
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Histogram,
        HistogramDataPoint,
        Metric,
        NumberDataPoint,
        Sum,
    )

    family, total = reading.family, AggregationTemporality.CUMULATIVE
    data: Gauge | Histogram | Sum
    if family.kind is Kind.HISTOGRAM:
        data = Histogram(
            [
                HistogramDataPoint(
                    attributes=attributes,
                    start_time_unix_nano=since,
                    time_unix_nano=now,
                    count=sum(seen.counts),
                    sum=seen.total,
                    bucket_counts=seen.counts,
                    explicit_bounds=seen.bounds,
                    # Nobody has kept them, and the protocol can do without.
                    min=None,  # type: ignore[arg-type]
                    max=None,  # type: ignore[arg-type]
                )
                for attributes, seen in _distributions(reading)
            ],
            total,
        )
    else:
        numbers = [
            NumberDataPoint(attributes, since, now, value)
            for attributes, value in _numbers(reading)
        ]
        is_sum = family.kind is Kind.COUNTER
        data = Sum(numbers, total, is_monotonic=True) if is_sum else Gauge(numbers)
    return Metric(_name(family), family.help, _unit(family), data)


def _numbers(reading: Reading) -> Iterator[tuple[Mapping[str, str], float]]:
    for point in reading.points:
        if isinstance(point.value, bool):
            # For the protocol, true is no number.
            yield _attributes(reading, point), int(point.value)
        elif not isinstance(point.value, Distribution):
            yield _attributes(reading, point), point.value


def _distributions(
    reading: Reading,
) -> Iterator[tuple[Mapping[str, str], Distribution]]:
    for point in reading.points:
        if isinstance(point.value, Distribution):
            yield _attributes(reading, point), point.value


def _attributes(reading: Reading, point: Point) -> Mapping[str, str]:
    return dict(zip(reading.labels, point.labels, strict=True))


def _name(family: Family) -> str:
    """Without what is added again on the way to Prometheus."""
    return family.name.removesuffix("_total")


def _unit(family: Family) -> str:
    return next((u for end, u in UNITS.items() if _name(family).endswith(end)), "")
