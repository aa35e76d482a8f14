"""The bootstep that gives a worker with ``-B`` its beat."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker as WorkerProcess

from unstuck.beat.service import Service
from unstuck.pool.board import Board


class BeatStep(bootsteps.StartStopStep):
    """Have a beat kept beside main."""

    def include_if(self, worker: Any) -> bool:
        """Only in a process that is a worker, and was asked to."""
        return isinstance(worker, WorkerProcess) and worker.has_beat

    def create(self, worker: Any) -> None:
        """Name it among the companions."""
        service = Service(
            worker.app,
            schedule_filename=worker.schedule_filename,
            scheduler_cls=worker.scheduler,
        )
        # The worker answers for this process.
        service.remote_control = False
        service.node = worker.hostname

        def beat(board: Board) -> int:
            return service.live(board, embedded=True)

        worker.companions["beat"] = beat
