"""A project that wants the metrics of its nodes by OpenTelemetry, in a file."""

from __future__ import annotations

import os
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

VARIABLE = "PROJECT_EXPORTED"


class ToFile(MetricExporter):
    """Writes what it is given, a line each time."""

    def export(self, metrics_data: Any, *_: Any, **__: Any) -> MetricExportResult:
        with open(os.environ[VARIABLE], "a") as file:
            file.write(metrics_data.to_json(indent=None) + "\n")
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass


def exporter() -> MetricExporter:
    """What the node is told to call."""
    return ToFile()
