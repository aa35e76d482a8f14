"""The arguments of a message as they may be shown: redacted by ``REDACT``."""

from __future__ import annotations

from typing import Any

from unstuck import conf
from unstuck.letters.message import StoredMessage
from unstuck.letters.redact import redacted_args, redacted_kwargs
from unstuck.letters.replay import arguments_of


def shown_arguments(
    app: Any, message: StoredMessage, task_name: str
) -> tuple[list[Any], Any] | None:
    """Positional ones and those by name; ``None`` when the body cannot be read."""
    arguments = arguments_of(app, message)
    if arguments is None:
        return None
    args, kwargs = arguments
    names = conf.current().redact
    task = app.tasks.get(task_name)
    return redacted_args(args, task, names), redacted_kwargs(kwargs, names)
