"""Lines for people: as Celery has them, one an event, and with the task in each."""

from __future__ import annotations

import logging
from typing import Any

from celery.utils.log import ColorFormatter

from unstuck.logs import task
from unstuck.logs.process import here

FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"


class PlainFormatter(ColorFormatter):
    """Celery's formatter; a task's lines begin with its name and id.

    One line an event: line breaks, those of tracebacks too, are written as ``\\n``. On a
    terminal, where there is colour, they stay what they are.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: str = "%",
        *_: Any,
        format: str | None = None,
        use_color: bool = False,
        **__: Any,
    ) -> None:
        fmt = fmt or format  # What dictConfig calls it.
        if style != "%":
            raise ValueError(
                f"style = {style!r}: PlainFormatter knows formats with % only. "
                f'Write "%(message)s" and leave style out.'
            )
        super().__init__(fmt or FORMAT, use_color=use_color)
        self.datefmt = datefmt  # Celery 5.6 does not take it.
        self._places_task = any(f"%({name})" in (fmt or "") for name in task.FIELDS)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        text = str(super().format(record))
        if self.use_color:
            return text
        return text.replace("\r", "\\r").replace("\n", "\\n")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        found = task.of(record)
        if here.name:
            record.processName = here.name
        if self._places_task:
            task.TaskFilter().filter(record)
        elif found and found.id not in record.message:
            record.message = f"{found.name}[{found.id}]: {record.message}"
        return super().formatMessage(record)  # type: ignore[no-any-return]
