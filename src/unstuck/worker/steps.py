"""What a worker does beside consuming, as Celery bootsteps."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker as WorkerProcess
from celery.concurrency import prefork, solo, thread
from django.apps import apps
from django.core import checks

from unstuck import conf
from unstuck.configuration import let_worker_wait_for_results, put
from unstuck.rabbit import forks
from unstuck.worker.aside import AsideStep, WatchAsideStep
from unstuck.worker.lookout import Lookout
from unstuck.worker.watch import Watch

logger = logging.getLogger(__name__)

REAP_SECONDS = 0.25

POOLS_WITHOUT_LIMITS = (solo.TaskPool, thread.TaskPool)
"""Celery's pools that ignore time limits and say nothing about it."""


class Preflight(bootsteps.Step):
    """Refuse to start with settings that cannot be used."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        _take_limits_of_the_command_line(worker.app, options)
        let_worker_wait_for_results(worker.app.conf)
        if conf.in_django():
            _refuse_errors()
            _tell_what_is_missing()


def _take_limits_of_the_command_line(app: Any, options: dict[str, Any]) -> None:
    # Celery hands these to the pool, where the limits of the tasks win over them.
    for name in ("time_limit", "soft_time_limit"):
        if options.get(name):
            put(app.conf, f"task_{name}", options[name])
    if options.get("time_limit") or options.get("soft_time_limit"):
        for task in app.tasks.values():
            task.settle_limits(app)


def _refuse_errors() -> None:
    found = checks.run_checks(tags=["unstuck"])
    errors = [
        message
        for message in found
        if message.level >= checks.ERROR and not message.is_silenced()
    ]
    if errors:
        lines = "\n".join(str(message) for message in errors)
        raise SystemExit(f"The worker does not start with these settings:\n{lines}")


def _tell_what_is_missing() -> None:
    # A check says so, too, to those who run it.
    if not apps.is_installed("unstuck"):
        logger.warning(
            '"unstuck" is not in INSTALLED_APPS: dead letters stay on the broker, and '
            "this worker records nothing. Add it, and run `manage.py migrate unstuck`."
        )


class Limits(bootsteps.StartStopStep):
    """Time limits for Celery's pools that have none: threads and solo."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Only where the pool does not keep limits itself."""
        return isinstance(worker.pool, POOLS_WITHOUT_LIMITS)

    def create(self, worker: Any) -> Watch:
        """The watch that the tasks of this process run under."""
        watch = worker.app.watch = Watch(worker.pool)
        return watch


class Reaping(bootsteps.StartStopStep):
    """Notice a dead child of Celery's prefork pool at once.

    Celery looks when the child's pipe closes, which is before the kernel lets it be
    waited for, and then not again for 5 seconds: so long its slot is empty.
    """

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Only where an event loop maintains a pool of processes."""
        return worker.use_eventloop and type(worker.pool) is prefork.TaskPool

    def start(self, worker: Any) -> None:
        """Look more often."""
        worker.timer.call_repeatedly(REAP_SECONDS, worker.pool.maintain_pool)


class Forking(bootsteps.StartStopStep):
    """Keep what main publishes by from being shut down in a child of Celery's prefork."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Only where main itself forks children, and speaks AMQP."""
        with worker.app.connection_for_write() as connection:
            is_amqp = connection.transport.driver_type == "amqp"
        return is_amqp and type(worker.pool) is prefork.TaskPool

    def start(self, worker: Any) -> None:
        """From now on."""
        forks.keep_connections_in_parent(worker.app)


class Looking(bootsteps.StartStopStep):
    """Tell the board what only main sees, for the probes, and heal a deaf consumer."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Only in a process that is a worker and nothing else."""
        return isinstance(worker, WorkerProcess)

    def start(self, worker: Any) -> None:
        """Before the consumer starts, whose broker may be away."""
        self.obj = Lookout(worker, worker.board)
        self.obj.start()


STEPS = (Preflight, Limits, Reaping, Forking, Looking, AsideStep, WatchAsideStep)
