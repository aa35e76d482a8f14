"""What this process knows of the project; nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unstuck import conf, project
from unstuck.app import Celery
from unstuck.checks.messages import used_queues
from unstuck.checks.timeouts import seconds_until_given_away
from unstuck.checks.view import Project
from unstuck.core.errors import UnstuckError
from unstuck.core.limits import Limits
from unstuck.doctor.facts import Code, Here
from unstuck.letters.queue import name_for
from unstuck.queues import queue_of
from unstuck.worker import told


def here_of(app: Celery) -> Here:
    """The project, with the tasks that a worker would know, as far as they load.

    Raises ``UnstuckError`` when its settings cannot be read.
    """
    view = Project.of(app)
    if view.read_error:
        raise UnstuckError(
            f"The settings of Celery cannot be read: {view.read_error}. "
            f"`manage.py check` says more."
        )
    shutdown = app.conf.worker_soft_shutdown_timeout
    return Here(
        code=code_from(told.code_of(app)),
        app=project.home_of(app) or "PROJECT",
        limits=dict(_limits(view)),
        queues=frozenset(app.amqp.queues.consume_from),
        sent_to=frozenset(queue for queue, _ in used_queues(view)),
        goes_to=dict(_destinations(view)),
        letters=name_for(app),
        given_away_after=seconds_until_given_away(view),
        shutdown_seconds=float(shutdown or 0),
        database=conf.current().database,
    )


def code_from(said: Any) -> Code:
    """The code of a process, from what it said of it."""
    return Code(
        versions=said["versions"],
        settings=said["settings"],
        tasks=frozenset(said["tasks"]),
    )


def _limits(view: Project) -> Iterator[tuple[str, Limits]]:
    for each in view.tasks:
        task = each.task
        yield each.name, Limits(soft=task.soft_time_limit, hard=task.time_limit)


def _destinations(view: Project) -> Iterator[tuple[str, str]]:
    for each in view.tasks:
        queue = queue_of(view.app, each.task)
        if queue is not None:
            yield each.name, queue or str(view.conf.task_default_queue)
