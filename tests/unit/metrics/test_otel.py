"""Readings as OpenTelemetry's data points, and who takes them."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Gauge,
    Histogram,
    Metric,
    MetricExporter,
    MetricExportResult,
    Sum,
)

from unstuck.metrics import otel
from unstuck.metrics.family import Distribution, Family, Kind, Point, Reading
from unstuck.pool.board import Board
from unstuck.probes import export
from unstuck.probes.export import SECONDS, Sender, interval
from unstuck.probes.snapshot import About

ABOUT = About(node="celery@w1", supervised=True, stall_seconds=30, started_at=100.5)
STARTED = 100_500_000_000


def sent(kind: Kind, name: str, *points: Point) -> list[Metric]:
    """What becomes of one reading."""
    family = Family(name, kind, "Help.", ("queue",))
    reading = Reading(family, family.labels, points)
    data = otel.data_of([reading], node="celery@w1", started_at=100.5)
    [resource] = data.resource_metrics
    assert resource.resource.attributes["service.instance.id"] == "celery@w1"
    [scope] = resource.scope_metrics
    return list(scope.metrics)


def test_a_counter_is_a_sum_since_the_node_started() -> None:
    """Which never goes down, and has the name that it gets back for Prometheus."""
    [metric] = sent(Kind.COUNTER, "unstuck_things_total", Point(("mail",), 7))

    assert (metric.name, metric.unit, metric.description) == (
        "unstuck_things",
        "",
        "Help.",
    )
    assert isinstance(metric.data, Sum)
    assert metric.data.is_monotonic
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
    [point] = metric.data.data_points
    assert (point.value, point.attributes) == (7, {"queue": "mail"})
    assert point.start_time_unix_nano == STARTED < point.time_unix_nano


@pytest.mark.parametrize(
    ("name", "unit"),
    [("unstuck_lag_seconds", "s"), ("unstuck_memory_bytes", "By"), ("unstuck_up", "")],
)
def test_a_gauge_has_its_unit(name: str, unit: str) -> None:
    """As the suffix says."""
    [metric] = sent(Kind.GAUGE, name, Point(("mail",), 2.5))

    assert isinstance(metric.data, Gauge)
    assert (metric.name, metric.unit) == (name, unit)
    assert metric.data.data_points[0].value == 2.5


def test_what_is_true_is_a_one() -> None:
    """The protocol knows numbers only."""
    [metric] = sent(Kind.GAUGE, "unstuck_up", Point(("a",), True), Point(("b",), False))

    assert isinstance(metric.data, Gauge)
    values = [point.value for point in metric.data.data_points]
    assert (values, {type(value) for value in values}) == ([1, 0], {int})


def test_a_histogram_keeps_its_buckets() -> None:
    """Each for itself, the last one without a bound."""
    seen = Distribution((0.5, 30.0), (2, 0, 1), 99.5)
    [metric] = sent(Kind.HISTOGRAM, "unstuck_time_seconds", Point(("mail",), seen))

    assert isinstance(metric.data, Histogram)
    [point] = metric.data.data_points
    assert (point.bucket_counts, point.explicit_bounds) == ((2, 0, 1), (0.5, 30.0))
    assert (point.count, point.sum, point.min, point.max) == (3, 99.5, None, None)


def test_what_is_not_known_is_not_sent() -> None:
    """No metric without points."""
    assert sent(Kind.GAUGE, "unstuck_lag_seconds") == []


# Who takes them.


def test_the_exporter_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the SDK would find it."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    assert isinstance(otel.exporter_of_environment(), ConsoleMetricExporter)


@pytest.mark.parametrize(
    ("exporter", "protocol"), [("carrier-pigeon", ""), ("otlp", "avian")]
)
def test_an_exporter_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, exporter: str, protocol: str
) -> None:
    """What was asked for, and what to install."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporter)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)

    with pytest.raises(LookupError, match=f"{exporter}.*{protocol}.*Install"):
        otel.exporter_of_environment()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("1500", 1.5), ("", SECONDS), ("often", SECONDS), ("0", 0.1)],
)
def test_how_often(monkeypatch: pytest.MonkeyPatch, said: str, seconds: float) -> None:
    """In the milliseconds of OpenTelemetry."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", said)
    assert interval() == seconds


def test_a_collector_that_is_away_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However it fails, and when it is back."""
    caplog.set_level(logging.WARNING, "unstuck.probes.export")
    answers: list[Any] = [
        LookupError("not installed"),
        None,
        OSError("no route"),
        MetricExportResult.FAILURE,
        MetricExportResult.SUCCESS,
        MetricExportResult.SUCCESS,
    ]
    made = Made(answers)
    sender = Sender(made.make, Board(), ABOUT)

    for _ in range(5):
        sender.send()

    assert answers == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "LookupError: not installed" in caplog.text
    sender.close()
    assert made.is_shut


class Hanging(MetricExporter):
    """As one whose collector does not answer."""

    bell: int

    def export(self, *_: Any, **__: Any) -> MetricExportResult:
        os.write(self.bell, b".")
        time.sleep(60)
        return MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass


def test_a_collector_that_hangs_keeps_no_node_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of sending, when it is told to end."""
    monkeypatch.setattr(export, "LAST_SECONDS", 0.2)
    heard, Hanging.bell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            export.run(Board(), ABOUT, f"{__name__}.Hanging")
        finally:
            os._exit(7)
    assert os.read(heard, 1) == b"."
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)

    os.waitpid(pid, 0)

    assert time.monotonic() - began < 30
    os.close(heard)
    os.close(Hanging.bell)


class Made:
    """An exporter that does what it is told, one after the other."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.is_shut = False

    def make(self) -> Any:
        """Be made, or not."""
        return self if self._next() is None else None

    def export(self, _: Any) -> Any:
        return self._next()

    def shutdown(self, timeout_millis: float) -> None:
        self.is_shut = True

    def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer
