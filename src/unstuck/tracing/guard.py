"""Tracing never decides what becomes of a message.

Headers are whatever somebody has sent, and a project may add processors and samplers of its
own: whatever one of them raises, what is within the span is done, once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from unstuck.fields import Fields

logger = logging.getLogger(__name__)

T = TypeVar("T")

_said: set[str] = set()


@contextmanager
def harmless(
    make: Callable[[], AbstractContextManager[T]], otherwise: T
) -> Iterator[T]:
    """The span that ``make`` gives; where that fails, nothing but ``otherwise``."""
    try:
        span = make()
        entered = span.__enter__()
    except Exception as error:
        say(error)
        yield otherwise
        return
    try:
        yield entered
    except BaseException as error:
        _leave(span, error)
        raise
    _leave(span, None)


def _leave(span: AbstractContextManager[T], error: BaseException | None) -> None:
    try:
        if error is None:
            span.__exit__(None, None, None)
        else:
            span.__exit__(type(error), error, error.__traceback__)
    except Exception as raised:
        if raised is not error:
            say(raised)


def say(error: Exception) -> None:
    """Say it once for each kind of error: there are as many spans as tasks."""
    kind = type(error).__qualname__
    if kind not in _said:
        _said.add(kind)
        logger.error(
            "A span could not be recorded, and others may be missing: %(fields)s",
            Fields(error=error),
            exc_info=True,
        )
