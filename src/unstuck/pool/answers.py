"""What a child answers, packed so that main can always read it.

Exceptions are the project's own, and some can be pickled and not read again, or not even
pickled. What they mean to a message must get through all the same.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import MaybeEncodingError
from celery.exceptions import Ignore, Reject, Retry
from kombu.utils.encoding import safe_repr


class Seen(NamedTuple):
    """What a child has seen of a job."""

    seconds: float
    rss_bytes: int
    rss_growth_bytes: int
    interrupted: bool
    """Whether the soft limit was raised in it."""


class Answer(NamedTuple):
    """How a job ended, and what was seen of it."""

    ok: bool
    """Whether the call came back; it may have come back with a task's failure."""

    value: Any
    seen: Seen


def packed(ok: bool, value: Any, seen: Seen) -> bytes:
    """The answer as bytes that ``unpacked`` can read."""
    facts = tuple(seen)
    try:
        data = pickle.dumps((ok, value, facts), pickle.HIGHEST_PROTOCOL)
        if _info_in(ok, value):
            pickle.loads(data)  # noqa: S301 - what was packed right here
    except Exception as error:
        return pickle.dumps((ok, _readable(ok, value, error), facts))
    return data


def unpacked(data: bytes) -> Answer:
    """The answer that a child of ours has packed."""
    ok, value, facts = pickle.loads(data)  # noqa: S301 - from our own child
    return Answer(ok, value, Seen(*facts))


def _info_in(ok: bool, value: Any) -> Any:
    """The exception that an answer carries: the pool's own, or the tracer's."""
    if not ok:
        return value
    failed, info = value[:2] if isinstance(value, tuple) else (False, None)
    return info if failed else None


def _readable(ok: bool, value: Any, error: Exception) -> Any:
    """The same answer with an exception of the same meaning that can be read."""
    info = _info_in(ok, value)
    replacement = _info_like(info, _of_same_meaning(info, value, error))
    return (1, replacement, *value[2:]) if ok and info else replacement


def _of_same_meaning(info: Any, value: Any, error: Exception) -> Any:
    raised = getattr(info, "exception", None)
    if isinstance(raised, ExceptionWithTraceback):
        raised = raised.exc
    match raised:
        case Retry():
            return Retry(safe_repr(raised))
        case Reject():
            return Reject(safe_repr(raised.reason), requeue=raised.requeue)
        case Ignore():
            return Ignore()
        case SoftTimeLimitExceeded():
            return SoftTimeLimitExceeded()
    return MaybeEncodingError(error, safe_repr(raised or value))


def info_of(error: BaseException) -> ExceptionInfo:
    """An error in the form in which Celery's pools report one."""
    try:
        raise error
    except BaseException:
        return ExceptionInfo()


def _info_like(original: Any, error: BaseException) -> ExceptionInfo:
    info = info_of(error)
    if original is not None:
        info.traceback = str(original.traceback)
    return info
