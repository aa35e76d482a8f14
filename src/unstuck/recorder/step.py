"""The bootstep that gives a worker its recorder."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker as WorkerProcess

from unstuck import conf
from unstuck.pool.board import RECORDER, Board


class RecorderStep(bootsteps.StartStopStep):
    """Have a recorder kept beside main."""

    def include_if(self, worker: Any) -> bool:
        """Only in a worker process of a Django project that has our tables.

        A worker in a thread of something else (Celery's test worker) must not fork it.
        """
        is_process = isinstance(worker, WorkerProcess)
        return is_process and conf.has_our_tables()

    def create(self, worker: Any) -> None:
        """Name it among the companions."""
        # Its models cannot be imported before Django has loaded the apps.
        from unstuck.recorder.node import About
        from unstuck.recorder.process import run

        about = About.of(worker)

        def record(board: Board) -> None:
            beat = board.row(RECORDER).beat
            run(worker.app, worker.facts, beat, about, board)

        worker.companions["recorder"] = record
