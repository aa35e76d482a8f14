"""The process that sends the metrics of a node to OpenTelemetry, where that is wanted.

One of its own, as it waits for a collector; and forked as all are, so that an exporter is
made where it is used.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from django.utils.module_loading import import_string

from unstuck.fields import Fields
from unstuck.metrics import otel
from unstuck.pool import prctl
from unstuck.pool.board import Board
from unstuck.probes import metrics
from unstuck.probes.snapshot import About

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData

NAME = "unstuck-otel"
INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
"""Milliseconds, as the SDK has it."""

SECONDS = 60.0
TURN_SECONDS = 0.5
LAST_SECONDS = 3.0
"""How long the last time may take: the node stops, and its collector may be away."""

logger = logging.getLogger(__name__)


def run(board: Board, about: About, wanted: bool | str) -> None:
    """Send what is counted now and then until SIGTERM, and once more."""
    stopping = _Stopping()
    signal.signal(signal.SIGALRM, _end)
    signal.signal(signal.SIGTERM, stopping)
    prctl.call_us(NAME)
    sender = Sender(partial(_exporter, wanted), board, about)
    seconds = interval()
    while not stopping.asked:
        sender.send()
        due_at = time.monotonic() + seconds
        while not stopping.asked and time.monotonic() < due_at:
            time.sleep(min(TURN_SECONDS, seconds))
    sender.send()
    sender.close()


def interval() -> float:
    """How many seconds lie between two times; what is no number is as if it was not said."""
    try:
        return max(0.1, float(os.environ.get(INTERVAL, "")) / 1000)
    except ValueError:
        return SECONDS


class Sender:
    """Sends all there is. A collector that does not take it is told of once."""

    def __init__(
        self, make: Callable[[], MetricExporter], board: Board, about: About
    ) -> None:
        """``make`` is called until it has made an exporter."""
        self._make = make
        self._exporter: MetricExporter | None = None
        self._board = board
        self._about = about
        self._is_failing = False

    def send(self) -> None:
        """Send it now. Counters are sums since the node started, so none is missed."""
        problem = self._problem()
        if problem and not self._is_failing:
            logger.warning(
                "Metrics are not taken, which is tried again: %(fields)s",
                Fields(problem=problem),
            )
        elif self._is_failing and not problem:
            logger.warning("Metrics are taken again")
        self._is_failing = bool(problem)

    def close(self) -> None:
        """Let the exporter go."""
        if self._exporter is not None:
            self._exporter.shutdown(timeout_millis=LAST_SECONDS * 1000)

    def _problem(self) -> str:
        try:
            if self._exporter is None:
                self._exporter = self._make()
            done = self._exporter.export(self._data())
        except Exception as error:
            # Somebody else's code, and an outage is no reason to end.
            return f"{type(error).__name__}: {error}"
        return "" if done.name == "SUCCESS" else f"the exporter says {done.name}"

    def _data(self) -> MetricsData:
        seen = metrics.readings(self._board, self._about)
        about = self._about
        return otel.data_of(seen, node=about.node, started_at=about.started_at)


def _exporter(wanted: bool | str) -> MetricExporter:
    if isinstance(wanted, str):
        made: MetricExporter = import_string(wanted)()
        return made
    return otel.exporter_of_environment()


class _Stopping:
    asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, LAST_SECONDS)


def _end(*_: object) -> None:
    raise SystemExit(0)
