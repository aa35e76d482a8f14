"""Lines for machines: one JSON object an event."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from unstuck import conf, tracing
from unstuck.core.errors import SettingsError
from unstuck.core.settings import REDACTED_NAMES
from unstuck.fields import Fields, constant, said, worded
from unstuck.letters.redact import clean, redacted_kwargs, storable
from unstuck.logs import task
from unstuck.logs.process import here

NO_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName"),
}
"""Attributes of a record that are no ``extra`` of whoever wrote the line."""

ARGUMENTS = ("args", "kwargs", "traceback")
"""What Celery adds to its lines unasked: arguments as text, which cannot be redacted."""


class JsonFormatter(logging.Formatter):
    """One object a line; what is in it, docs/logs.md says."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = _fields_of(record)
        line = {
            "time": _rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            **_text_of(record),
            "process": here.role or record.processName,
            "node": here.node,
            "pid": record.process,
            **_task_of(record, fields),
            **tracing.ids(),
            "fields": _shown(fields),
            "exception": self._exception_of(record),
            "stack": record.stack_info,
        }
        there = {name: value for name, value in line.items() if value}
        return clean(json.dumps(there, ensure_ascii=False, default=str))

    def _exception_of(self, record: logging.LogRecord) -> dict[str, str] | None:
        if not record.exc_info or record.exc_info[0] is None:
            return None
        kind, error, _ = record.exc_info
        return {
            "type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            "message": said(error),
            "traceback": self.formatException(record.exc_info),
        }


def _rfc3339(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text_of(record: logging.LogRecord) -> dict[str, str]:
    """Our lines have a constant text; of others, what it was made of is told as well."""
    if isinstance(record.args, Fields):
        return {"text": constant(str(record.msg))}
    text = {"text": record.getMessage()}
    return {**text, "template": str(record.msg)} if record.args else text


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    extra = {
        name: value
        for name, value in vars(record).items()
        # Celery passes what its line is made of a second time.
        if name not in NO_FIELDS and value is not record.args
    }
    if extra.get("task_id") == task.NOBODY:
        extra = {name: extra[name] for name in extra.keys() - task.FIELDS}
    if not isinstance(record.args, Mapping):
        return extra
    if isinstance(record.args, Fields):
        return {**extra, **record.args}
    named = {name: v for name, v in record.args.items() if name not in ARGUMENTS}
    return {**extra, **named}


def _task_of(record: logging.LogRecord, fields: dict[str, Any]) -> dict[str, Any]:
    """The task that the line is about, or else the one that wrote it."""
    if record.name.startswith("celery.") and {"id", "name"} <= fields.keys():
        fields |= {"task_id": fields.pop("id"), "task_name": fields.pop("name")}
    found = task.of(record)
    running = dict(zip(task.FIELDS, found, strict=True)) if found else {}
    if "task_id" not in fields:
        return running
    about = {name: fields.pop(name) for name in task.FIELDS if name in fields}
    return running | about if running.get("task_id") == about["task_id"] else about


def _shown(fields: Mapping[str, Any]) -> Any:
    try:
        names = conf.current().redact
    except SettingsError:
        names = REDACTED_NAMES
    plain = {
        name: worded(value) if isinstance(value, BaseException) else value
        for name, value in fields.items()
    }
    try:
        return storable(redacted_kwargs(plain, names))
    except Exception as error:
        # The line counts for more than what was put into it.
        return {"unreadable": worded(error)}
