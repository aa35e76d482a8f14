"""Lines of the log: one an event, in plain text or JSON, with the task that they are of.

A project that sets its logging up itself names these in its ``LOGGING``.
"""

from __future__ import annotations

from unstuck.logs.json import JsonFormatter
from unstuck.logs.plain import PlainFormatter
from unstuck.logs.task import TaskFilter

__all__ = ["JsonFormatter", "PlainFormatter", "TaskFilter"]
