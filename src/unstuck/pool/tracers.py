"""Celery's tracers, built once before children are forked and not anew in each.

A tracer is what Celery runs a task with. ``process_initializer`` builds one for each task
of the project in each child, which takes longer than many a task does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.app import trace


def build(app: Any, hostname: str) -> None:
    """Give each task its tracer, for all processes that are forked from here on."""
    for name, task in app.tasks.items():
        task.__trace__ = trace.build_tracer(name, task, app.loader, hostname, app=app)


@contextmanager
def inherited() -> Iterator[None]:
    """Within, who wants a tracer built gets the one that is there already.

    Those that store which process runs their task are built anew: they keep its number.
    """
    build_anew = trace.build_tracer

    def find(name: str, task: Any, *args: Any, **options: Any) -> Any:
        there = vars(task).get("__trace__")
        if there is None or task.track_started:
            return build_anew(name, task, *args, **options)
        return there

    trace.build_tracer = find
    try:
        yield
    finally:
        trace.build_tracer = build_anew
