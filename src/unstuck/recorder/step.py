"""The bootstep that gives a worker its recorder."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker as WorkerProcess
from django.apps import apps

from unstuck import conf
from unstuck.worker.supervisor import Supervisor


class RecorderStep(bootsteps.StartStopStep):
    """Fork the recorder while this process is still clean: no pool, no broker."""

    def include_if(self, worker: Any) -> bool:
        """Only in a worker process of a Django project that has our tables.

        A worker in a thread of something else (Celery's test worker) must not fork it.
        """
        is_process = isinstance(worker, WorkerProcess)
        return is_process and conf.in_django() and apps.is_installed("unstuck")

    def create(self, worker: Any) -> Supervisor:
        """The supervisor of the recorder, already at work."""
        # Its models cannot be imported before Django has loaded the apps.
        from unstuck.recorder.process import run

        app = worker.app
        return Supervisor.fork("recorder", lambda: run(app))
