"""Celery's own setup of the log, with our formatters.

Celery seam (tests/integration/test_logs.py): ``Celery.log_cls``, whose
``setup_handlers`` makes every formatter that Celery installs. A project that does it itself
(the signal ``setup_logging``, handlers that are there already) is not asked.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from celery.app import log

from unstuck import conf
from unstuck.core.errors import SettingsError
from unstuck.logs.json import JsonFormatter
from unstuck.logs.plain import PlainFormatter

FORMATTERS: dict[str, type[Any]] = {"plain": PlainFormatter, "json": JsonFormatter}


def kind() -> str:
    """What ``UNSTUCK["LOGS"]`` says, also where something else in there is wrong."""
    try:
        return conf.current().logs
    except SettingsError:
        return "plain"  # Whoever starts the worker is told so, in this log.


def say(text: str, file: Any = sys.__stderr__) -> None:
    """A line of JSON from a signal handler, which must not use the log itself."""
    record = logging.makeLogRecord(
        {"name": __name__, "levelname": "WARNING", "msg": text.strip()}
    )
    os.write(file.fileno(), f"{JsonFormatter().format(record)}\n".encode())


class Logging(log.Logging):
    """``app.log``."""

    def setup_handlers(
        self,
        logger: Any,
        logfile: Any,
        format: Any,
        colorize: Any,
        formatter: Any = None,
        **options: Any,
    ) -> Any:
        """Give a logger its handler, unless it has one."""
        ours = FORMATTERS[kind()]
        return super().setup_handlers(
            logger, logfile, format, colorize, formatter=ours, **options
        )
