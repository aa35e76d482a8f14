"""Tracers are built once for all children, by what Celery calls in each of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PROGRAM = """
    from celery.app import trace
    from celery.concurrency.prefork import process_initializer

    from unstuck import Celery
    from unstuck.pool import tracers

    app = Celery("shop", broker="memory://")


    def nothing():
        pass


    app.task(name="plain")(nothing)
    app.task(name="started", track_started=True)(nothing)
    app.finalize()
    tracers.build(app, "node")
    before = {name: task.__trace__ for name, task in app.tasks.items()}
    celerys_own = trace.build_tracer

    with tracers.inherited():
        process_initializer(app, "node")

    assert trace.build_tracer is celerys_own
    after = {name: task.__trace__ for name, task in app.tasks.items()}
    print(*sorted(name for name in before if after[name] is not before[name]))
"""


def test_celery_finds_the_tracers_that_are_there() -> None:
    """But for a task that stores by which process it was started."""
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    said = subprocess.run(program, check=True, capture_output=True, text=True).stdout

    assert said.splitlines() == ["started"]
