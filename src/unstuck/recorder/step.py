"""The bootstep that gives a worker its recorder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker as WorkerProcess
from django.apps import apps

from unstuck import conf
from unstuck.pool.board import MAIN, RECORDER, Board, Column
from unstuck.worker import processes
from unstuck.worker.supervisor import STOP_SECONDS, Supervisor


class RecorderStep(bootsteps.StartStopStep):
    """Keep a recorder, forked while this process is still clean: no pool, no broker."""

    def include_if(self, worker: Any) -> bool:
        """Only in a worker process of a Django project that has our tables.

        A worker in a thread of something else (Celery's test worker) must not fork it.
        """
        is_process = isinstance(worker, WorkerProcess)
        return is_process and conf.in_django() and apps.is_installed("unstuck")

    def create(self, worker: Any) -> Aside | None:
        """With our pool the supervisor keeps it; else one beside this process."""
        # Its models cannot be imported before Django has loaded the apps.
        from unstuck.recorder.node import About
        from unstuck.recorder.process import run

        about = About.of(worker)

        def record(board: Board) -> None:
            beat = board.row(RECORDER).beat
            run(worker.app, worker.facts, beat, about, board)

        if worker.has_supervisor:
            worker.companions["recorder"] = record
            return None
        return Aside.fork(worker, record)


@dataclass(slots=True)
class Aside:
    """A supervisor of the recorder alone, beside a worker that has none above it."""

    pid: int
    board: Board

    @classmethod
    def fork(cls, worker: Any, record: Callable[[Board], None]) -> Aside:
        """Fork it; it ends with this process."""
        parent = os.getpid()

        def supervise() -> int:
            supervisor = Supervisor(
                node=worker.hostname,
                facts=worker.facts,
                board=worker.board,
                stall_seconds=conf.current().stall_seconds,
                given_up=lambda: os.getppid() != parent,
            )
            supervisor.keep("recorder", record)
            return supervisor.run()

        return cls(processes.fork(supervise), worker.board)

    def start(self) -> None:
        """Nothing: it runs since it was forked."""

    def stop(self) -> None:
        """End it and the recorder."""
        self.board.row(MAIN)[Column.STOPPING] = 1
        processes.end(self.pid, 2 * STOP_SECONDS)

    terminate = stop
