"""Put the message of a dead letter back, under a new task id."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kombu import serialization
from kombu.exceptions import KombuError

from unstuck import tracing
from unstuck.core.errors import ReplayError
from unstuck.letters import queue
from unstuck.letters.message import StoredMessage

FROM_BEFORE = ("eta", "expires", "unstuck")
"""Headers that would make a replay wait, expire or die for what was."""


def replay(
    app: Any,
    message: StoredMessage,
    *,
    task_id: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Publish the message anew under a new task id, its body byte for byte.

    ``args`` and ``kwargs`` replace those in the body; they are checked against the
    signature of the task.

    Raises ``ReplayError`` when the message has no place to go back to or the arguments
    do not fit, and kombu's ``OperationalError`` when the broker does not take it.
    """
    if not is_replayable(message):
        raise ReplayError(
            "This message names no task or no queue; it can be looked at, not replayed."
        )
    body = message.body
    if args is not None or kwargs is not None:
        body = _edited(app, message, args, kwargs)
    headers = {
        name: value
        for name, value in message.headers.items()
        if name not in FROM_BEFORE
    }
    original = message.headers.get("id")
    headers.update(id=task_id, retries=0, unstuck={"replay_of": original})
    if headers.get("root_id") == original:
        headers["root_id"] = task_id
    again = StoredMessage(
        body=body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        properties={**message.properties, "correlation_id": task_id},
        queue=message.queue,
    )
    about = tracing.Message(
        task_id=task_id,
        task_name=str(message.headers["task"]),
        queue=message.queue,
        broker=tracing.broker_of(app),
    )
    with tracing.publishing(about, again=message.headers) as trace:
        queue.put_back(app, again.with_headers(**trace))


def is_replayable(message: StoredMessage) -> bool:
    """Whether it says where it is to go, and for what; its body may be unreadable."""
    return bool(message.headers.get("task") and message.queue)


def arguments_of(
    app: Any, message: StoredMessage
) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments in a message, or ``None`` when its body cannot be read."""
    body = body_of(app, message)
    return body and body[:2]


def body_of(
    app: Any, message: StoredMessage
) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
    """The arguments in a message and what is to come after it; ``None`` likewise."""
    try:
        body = serialization.loads(
            message.body,
            message.content_type,
            message.content_encoding,
            accept=serialization.prepare_accept_content(app.conf.accept_content),
        )
        args, kwargs, embed = body
        return list(args), dict(kwargs), dict(embed or {})
    except (KombuError, ValueError, TypeError, LookupError):
        return None


def _edited(
    app: Any,
    message: StoredMessage,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> bytes:
    if message.content_type != "application/json":
        raise ReplayError(
            f"Only JSON messages can be edited; this one is {message.content_type}."
        )
    try:
        old_args, old_kwargs, embed = json.loads(message.body)
    except (ValueError, TypeError) as error:
        raise ReplayError(f"The body cannot be read, so not edited: {error}") from error
    new_args = list(old_args if args is None else args)
    new_kwargs = dict(old_kwargs if kwargs is None else kwargs)
    _check_signature(app, message.headers["task"], new_args, new_kwargs)
    return json.dumps([new_args, new_kwargs, embed]).encode()


def _check_signature(
    app: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    task = app.tasks.get(name)
    if task is None:
        raise ReplayError(
            f"This process does not know the task {name!r}, so its arguments cannot be "
            f"checked. Replay it unedited, or run this where the task is imported."
        )
    try:
        # Celery gives the one to functions only, without the bound ``self``.
        header = getattr(task, "__header__", None)
        if header is None:
            inspect.signature(task.run).bind(*args, **kwargs)
        else:
            header(*args, **kwargs)
    except TypeError as error:
        raise ReplayError(f"These arguments do not fit {name}: {error}") from error
