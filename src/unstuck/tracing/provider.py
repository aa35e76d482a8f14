"""Who takes the spans of this process.

A provider has threads, so none is made before the fork: each process makes its own when
it records its first span. One that the project has set is let be.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib.metadata import entry_points

from django.utils.module_loading import import_string
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from unstuck import __version__, conf
from unstuck.fields import Fields

logger = logging.getLogger(__name__)

GROUP = "opentelemetry_traces_exporter"
"""The entry points by which exporters are found."""

OTLP = {
    "http/protobuf": ("otlp_proto_http",),
    "grpc": ("otlp_proto_grpc",),
    "": ("otlp_proto_http", "otlp_proto_grpc"),
}
"""What ``otlp`` means, by protocol; where none is said, what is installed."""

_making = threading.Lock()


def tracer() -> trace.Tracer:
    """What spans are made with here."""
    if _is_unset():
        with _making:
            if _is_unset():
                trace.set_tracer_provider(_made())
    return trace.get_tracer("unstuck", __version__)


def _is_unset() -> bool:
    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _made() -> trace.TracerProvider:
    path = conf.current().tracing
    try:
        if isinstance(path, str):
            made: trace.TracerProvider = import_string(path)()
            return made
        return _of_environment()
    except Exception:
        # No task must fail for that: traces go on, and nobody sees the spans.
        logger.exception(
            "Spans of this process are not sent: %(fields)s", Fields(tracing=path)
        )
        return TracerProvider()


def _of_environment() -> TracerProvider:
    """As the variables ``OTEL_…`` say; the SDK itself reads all but the exporter."""
    made = TracerProvider()
    names = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")
    for name in map(str.strip, names):
        if name != "none":
            made.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return made


def _exporter(name: str) -> SpanExporter:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    names = OTLP.get(protocol, ()) if name == "otlp" else (name,)
    for point in (p for n in names for p in entry_points(group=GROUP, name=n)):
        exporter: SpanExporter = point.load()()
        return exporter
    raise LookupError(
        f"No package is installed for OTEL_TRACES_EXPORTER={name!r} "
        f"(OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}). "
        f"Install opentelemetry-exporter-otlp, or name another one."
    )
