"""Admission: what is looked at before Celery gets to see a message of a known task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery
from celery.exceptions import InvalidTaskError
from celery.worker import strategy as celery_strategy
from celery.worker.state import active_requests, requests
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.utils.imports import symbol_by_name

from unstuck.letters.message import COUNT
from unstuck.worker.rabbit import forget_deaths

CAN_ADOPT = celery.VERSION >= (5, 7)
"""Celery 5.6 forgets what runs in its pool when the connection is lost."""


NO_LIMITS = [None, None]
"""As most messages have it."""


def default(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy, behind our door."""
    run = celery_strategy.default(task, app, consumer, **options)
    broken = (*consumer.connection_errors, *consumer.channel_errors)

    def on_message(
        message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **more: Any
    ) -> Any:
        if body is None:
            check(message)
        forget_deaths(message)
        try:
            mixed = isinstance(message.payload, dict)  # protocols 1 and 2
            if body is None and not mixed and was_lost(message):
                return _come_back(task, consumer, message, ack, reject)
            if (
                body is None
                and not mixed
                and consumer.rabbit.puts_off(consumer, message)
            ):
                return None
            return run(message, body, ack, reject, callbacks, **more)
        except (InvalidTaskError, DecodeError, ContentDisallowed, *broken):
            raise
        except Exception as error:
            if message.acknowledged:
                raise
            # One odd message must not end the worker, again and again.
            raise InvalidTaskError(f"Celery cannot take it: {error!r}") from error

    return on_message


def _come_back(task: Any, consumer: Any, message: Any, ack: Any, reject: Any) -> None:
    """Settle a message that somebody had before, who did not settle it."""
    running = requests.get(message.headers["id"])
    if CAN_ADOPT and running in active_requests and running.is_same(message):
        running.adopt(message, ack, reject)
        return
    request_class = symbol_by_name(task.Request)
    request = request_class(
        message,
        on_ack=ack,
        on_reject=reject,
        app=consumer.app,
        hostname=consumer.hostname,
        eventer=consumer.event_dispatcher,
        task=task,
        connection_errors=consumer.connection_errors,
        body=message.body,
        headers=message.headers,
        decoded=False,
        utc=consumer.app.uses_utc_timezone(),
    )
    request.came_back()


def was_lost(message: Any) -> bool:
    """Whether this message was in somebody's hands before, who did not settle it.

    We never let a broker put a message back: what we queue again is published anew.
    Where the broker counts, one that was given back unused was not lost.
    """
    count = message.headers.get(COUNT)
    if isinstance(count, int):
        return count > 0
    info = message.delivery_info or {}
    return bool(info.get("redelivered") or message.headers.get("redelivered"))


def check(message: Any) -> None:
    """Refuse what would make Celery's worker stumble.

    Raises ``InvalidTaskError`` saying what is wrong, or kombu's errors of decoding.
    """
    try:
        _check_shape(message)
    except (InvalidTaskError, DecodeError, ContentDisallowed):
        raise
    except Exception as error:
        raise InvalidTaskError(f"The body cannot be decoded: {error!r}") from error


def _check_shape(message: Any) -> None:
    if not isinstance(message.headers.get("id"), str):
        raise InvalidTaskError("The header 'id' must be a string")
    _check_limits(message.headers.get("timelimit"))
    payload = message.payload
    if isinstance(payload, dict) and "args" in payload:
        return  # Celery reads this mixture of protocols 1 and 2 itself.
    if not isinstance(payload, (list, tuple)) or len(payload) != 3:
        raise InvalidTaskError("The body must be a list of args, kwargs and embed")
    args, kwargs, embed = payload
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise InvalidTaskError("args must be a list and kwargs a mapping")
    if embed is not None and not isinstance(embed, dict):
        raise InvalidTaskError("embed must be a mapping")


def _check_limits(limits: Any) -> None:
    if not limits or limits == NO_LIMITS:
        return
    good = (
        isinstance(limits, (list, tuple))
        and len(limits) == 2
        and all(limit is None or type(limit) in (int, float) for limit in limits)
    )
    if not good:
        raise InvalidTaskError(
            f"The header 'timelimit' must be two numbers or None: {limits!r}"
        )
