"""The program of one node: ``python -m unstuck.prove.node PLAN NAME``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import django
from celery.signals import worker_ready
from celery.worker.consumer.delayed_delivery import DelayedDelivery

from unstuck import project
from unstuck.probes.step import ProbesStep
from unstuck.profile import POOL
from unstuck.prove import ledger
from unstuck.prove.apart import CONCURRENCY, Plan, set_apart
from unstuck.recorder.step import RecorderStep
from unstuck.worker.aside import AsideStep


def main(arguments: Sequence[str]) -> int:
    """Be a worker of the project that consumes the queue of the plan and no other."""
    plan, name = Plan.from_json(arguments[0]), arguments[1]
    django.setup()
    if plan.home:
        importlib.import_module(plan.home)
    app: Any = project.our_app()
    set_apart(app, plan)
    _leave_nothing_behind(app)

    def tell(**_: Any) -> None:
        ledger.write(plan.ledger, "ready", node=name)

    worker_ready.connect(tell)
    worker = app.Worker(
        hostname=name,
        pool=POOL,
        concurrency=CONCURRENCY,
        loglevel="INFO",
        queues=[plan.queue],
        include=["unstuck.prove.tasks"],
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
        quiet=True,
        no_color=True,
    )
    worker.start()
    return int(worker.exitcode or os.EX_OK)


def _leave_nothing_behind(app: Any) -> None:
    # Rows of runs, minutes and incidents; letters are archived by who reads our queue. And
    # whoever probes the workers of this host means those of the project.
    app.steps["worker"] -= {RecorderStep, ProbesStep, AsideStep}
    # On RabbitMQ: queues and bindings for ETAs, which we do not send.
    app.delays_on_broker = False
    DelayedDelivery.include_if = lambda *_: False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
