"""The bootstep that gives a worker its probes process, and one that exports metrics."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import celery
import django
from celery import bootsteps
from celery.apps.worker import Worker as WorkerProcess

from unstuck import __version__, conf
from unstuck.pool.board import Board
from unstuck.probes import runtime
from unstuck.probes.export import run as run_export
from unstuck.probes.process import run
from unstuck.probes.snapshot import About


class ProbesStep(bootsteps.StartStopStep):
    """Have them kept beside main."""

    def include_if(self, worker: Any) -> bool:
        """Only in a process that is a worker and nothing else."""
        return isinstance(worker, WorkerProcess)

    def create(self, worker: Any) -> None:
        """Name them among the companions."""
        settings = conf.current()
        about = About(
            node=worker.hostname,
            supervised=worker.has_supervisor,
            stall_seconds=settings.stall_seconds,
            tier=settings.metrics,
            started_at=time.time(),
            info=_info(worker, settings.release or ""),
        )
        directory = settings.runtime_dir
        place = runtime.place(
            Path(directory) if directory else runtime.first_usable(),
            worker.hostname,
            os.getpid(),
        )
        address = settings.probe_address

        def probe(board: Board) -> None:
            run(board, about, place, address)

        worker.companions["probes"] = probe
        if wanted := settings.metrics_export:

            def export(board: Board) -> None:
                run_export(board, about, wanted)

            worker.companions["otel"] = export


def _info(worker: Any, release: str) -> Mapping[str, str]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "celery": celery.__version__,
        "django": django.__version__,
        "node": worker.hostname,
        "pool": worker.pool_name,
        "release": release,
    }
