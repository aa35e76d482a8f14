"""A project that sets its log up itself."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import signals

from unstuck.logs import TaskFilter


@signals.setup_logging.connect(weak=False)
def set_up(**_: Any) -> None:
    """With a format of its own that names the task."""
    handler = logging.StreamHandler(sys.__stderr__)
    handler.addFilter(TaskFilter())
    handler.setFormatter(logging.Formatter("OWN %(task_id)s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel("INFO")
