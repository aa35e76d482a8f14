"""Publishing many calls of one task at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import celery
from celery import signals
from celery.app.routes import MapRoute
from celery.utils import uuid
from kombu.exceptions import EncodeError, OperationalError

from unstuck import tracing
from unstuck.core import broker
from unstuck.core.errors import NotAllSent
from unstuck.worker.stencil import Stencil

Call = tuple[Sequence[Any], Mapping[str, Any] | None]

Whole = tuple[tuple[Any, ...], dict[str, Any]]

LISTENED = (
    signals.before_task_publish,
    signals.after_task_publish,
    signals.task_sent,
)
"""Whoever listens to these wants to see each message when it is sent."""


def publish(task: Any, calls: Iterable[Call], options: Mapping[str, Any]) -> list[Any]:
    """Publish a task once for each pair of arguments; their results in that order.

    Nothing is sent when any of the calls does not fit the task or cannot be encoded.
    Raises ``TypeError`` and kombu's ``EncodeError`` for that, its ``OperationalError``
    when the broker is away, and ``NotAllSent`` for what the broker did not take.
    """
    whole = checked(task, calls)
    if not whole:
        return []
    with task.app.producer_or_acquire() as producer:
        channel = broker.lasting(producer.channel)
        if channel is None or must_be_seen(task):
            return _send_each(task, whole, {**options, "producer": producer})
        made = list(_make(task, whole, {**options, "producer": producer}, channel))
        puts = [put for _, some in made for put in some]
        with producer.connection._reraise_as_library_errors():
            said = iter(channel.send_all(puts))
    errors = [[next(said) for _ in some] for _, some in made]
    failed = {n: e for n, some in enumerate(errors) for e in some if e is not None}
    results = [None if n in failed else result for n, (result, _) in enumerate(made)]
    if failed:
        raise NotAllSent(results, failed)
    return results


def publish_each(
    task: Any, calls: Iterable[Call], options: Mapping[str, Any]
) -> list[Any]:
    """Call ``apply_async`` for each, once it is known that all fit the task."""
    return [
        task.apply_async(args, kwargs, **options)
        for args, kwargs in checked(task, calls)
    ]


def checked(task: Any, calls: Iterable[Call]) -> list[Whole]:
    """The calls, once it is known that all fit the task. Raises ``TypeError``."""
    whole = [(tuple(args or ()), dict(kwargs or {})) for args, kwargs in calls]
    _check(task, whole)
    return whole


def _check(task: Any, calls: Sequence[Whole]) -> None:
    for place, (args, kwargs) in enumerate(calls if task.typing else ()):
        try:
            task.__header__(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"Call number {place} does not fit {task.name}: {error}. Nothing was sent."
            ) from error


def must_be_seen(task: Any) -> bool:
    """Whether anything looks at single messages, or at their way, as they are sent."""
    app = task.app
    conf = app.conf
    return bool(
        any(signal.receivers for signal in LISTENED)
        or conf.task_always_eager
        or conf.task_send_sent_event
        or conf.task_protocol != 2
        or tracing.is_on()
    )


def is_like_others(task: Any) -> bool:
    """Whether the messages of a task differ in id and arguments alone."""
    routes = task.app.amqp.router.routes or ()
    return (
        all(isinstance(route, MapRoute) for route in routes)
        and type(task).shadow_name is celery.Task.shadow_name
        and getattr(task, "_dump_pydantic_arguments", None) is None
    )


def _send_each(
    task: Any, calls: Sequence[Whole], options: Mapping[str, Any]
) -> list[Any]:
    """Until the broker is away: each further one would wait for it in vain."""
    results: list[Any] = []
    for args, kwargs in calls:
        try:
            results.append(task.apply_async(args, kwargs, **options))
        except OperationalError as error:
            if not results:
                raise
            left = range(len(results), len(calls))
            results += [None] * len(left)
            raise NotAllSent(results, dict.fromkeys(left, error)) from error
    return results


def _make(
    task: Any,
    calls: Sequence[Whole],
    options: Mapping[str, Any],
    channel: broker.LastingChannel,
) -> Iterator[tuple[Any, list[Any]]]:
    """The result of each call, and what is to be sent for it."""
    like: tuple[Stencil, Any, Any] | None = None
    """How the others are printed: with the result and the message of the first."""

    for place, (args, kwargs) in enumerate(calls):
        try:
            if like is None:
                with channel.collected() as puts:
                    result = task.apply_async(args, kwargs, **options)
                yield result, puts
                if place == 0 and len(puts) == 1 and is_like_others(task):
                    printed = Stencil.of(puts[0].content, result.id, reprs_of(task))
                    like = (printed, result, puts[0]) if printed else None
            else:
                stencil, first, pattern = like
                task_id = uuid()
                content = stencil.message(task_id, args, kwargs)
                result = expected(task, task_id, first.ignored, options["producer"])
                _add_to_parent(task, result, options)
                yield result, [pattern.with_content(content)]
        except EncodeError as error:
            raise EncodeError(
                f"Call number {place} of {task.name} cannot be encoded: {error}. "
                "Nothing was sent."
            ) from error


def expected(task: Any, task_id: str, ignored: bool | None, producer: Any) -> Any:
    """The result of a call that is about to be sent; the result store is told."""
    result = task.AsyncResult(task_id)
    result.ignored = ignored
    if not ignored:
        with task.app.naming_result_store(task.name):
            task.backend.on_task_call(producer, task_id)
    return result


def _add_to_parent(task: Any, result: Any, options: Mapping[str, Any]) -> None:
    parent = task.app.current_worker_task
    if parent and options.get("add_to_parent", True):
        parent.add_trail(result)


def reprs_of(task: Any) -> dict[str, int]:
    """How long the arguments may be when they are shown."""
    app = task.app
    levels = getattr(app.conf, "task_repr_maxlevels", None)
    sizes = {"maxlen": app.amqp.argsrepr_maxsize}
    return {**sizes, "maxlevels": levels} if levels else sizes
