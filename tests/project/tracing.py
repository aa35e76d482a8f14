"""Tasks that log and are traced, and a provider that writes spans to a file.

A worker imports them with `-I tests.project.tracing`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from celery import shared_task
from celery.utils.log import get_task_logger
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

logger = logging.getLogger(__name__)

SPANS = "PROJECT_SPANS"
"""The environment variable with the file that spans are written to."""


class FileExporter(SpanExporter):
    """Writes each span as a line of JSON."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append them in one write."""
        lines = "".join(json.dumps(json.loads(span.to_json())) + "\n" for span in spans)
        file = os.open(os.environ[SPANS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, lines.encode())
        finally:
            os.close(file)
        return SpanExportResult.SUCCESS


def provider() -> TracerProvider:
    """What `UNSTUCK["TRACING"]` names: called once in each process that records."""
    made = TracerProvider(resource=Resource({"process.pid": os.getpid()}))
    made.add_span_processor(BatchSpanProcessor(FileExporter()))
    return made


@shared_task(bind=True, max_retries=1, default_retry_delay=0.1)
def fail_twice(self: Any) -> None:
    """Is retried once, and fails."""
    logger.warning("it fails")
    raise self.retry(exc=ValueError("no"))


@shared_task
def call(name: str) -> None:
    """Calls another one."""
    fail_twice.app.send_task(name)


@shared_task
def fine() -> None:
    """Does nothing."""


@shared_task(time_limit=1, soft_time_limit=0.9)
def hang() -> None:
    """Is killed at its hard limit."""
    while True:
        try:
            time.sleep(60)
        except Exception:
            logger.info("not impressed")


@shared_task
def die() -> None:
    """Is lost with its process."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True)
def say(self: Any) -> None:
    """Logs in every way there is."""
    logger.warning("by a logger of its module")
    get_task_logger(__name__).warning("by Celery's logger")
    logging.getLogger("elsewhere").warning("by %s", "another one")
    print("by print\nin two lines")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("with a traceback")
