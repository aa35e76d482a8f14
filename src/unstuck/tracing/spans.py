"""The spans, and how the trace goes with a message: in the headers of W3C."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from unstuck.tracing.about import Message
from unstuck.tracing.provider import tracer

MOST_TEXT = 32_000
"""Characters of a stack; collectors refuse what is much longer."""


def context_of(headers: Mapping[str, Any]) -> Context:
    """The trace that a message belongs to, or else the one that is active here."""
    fields = propagate.get_global_textmap().fields
    carried = {name: headers[name] for name in fields if _is_text(headers.get(name))}
    return propagate.extract(carried)


def _is_text(value: Any) -> bool:
    """Headers are whatever somebody has sent; lone surrogates cannot be encoded."""
    return isinstance(value, str) and value.isascii()


@contextmanager
def publishing(
    message: Message, again: Mapping[str, Any] | None
) -> Iterator[Mapping[str, str]]:
    """A span around the publishing of a message; gives the headers to publish."""
    name = "publish" if again is None else "replay"
    with tracer().start_as_current_span(
        f"{name} {message.task_name}",
        context=None if again is None else context_of(again),
        kind=SpanKind.PRODUCER,
        attributes=message.attributes(name, "send"),
        links=[] if again is None else _links_to_here(),
    ):
        headers: dict[str, str] = {}
        propagate.inject(headers)
        yield headers


def _links_to_here() -> list[Link]:
    here = trace.get_current_span().get_span_context()
    return [Link(here)] if here.is_valid else []


@contextmanager
def within(headers: Mapping[str, Any]) -> Iterator[None]:
    """The trace of a message is the active one."""
    token = context.attach(context_of(headers))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def burying(
    message: Message, headers: Mapping[str, Any], reason: str
) -> Iterator[None]:
    """A span around the making of a dead letter."""
    with tracer().start_as_current_span(
        f"bury {message.task_name}",
        context=context_of(headers),
        kind=SpanKind.PRODUCER,
        attributes={**message.attributes("bury", "send"), "unstuck.reason": reason},
    ):
        yield


@contextmanager
def waiting_for_lock(name: str, holder: str) -> Iterator[None]:
    """A span around a wait; one that was in vain ends as an error."""
    attributes = {"unstuck.lock": name, "unstuck.lock.holder": holder}
    with tracer().start_as_current_span("wait for a lock", attributes=attributes):
        yield


def begin_run(message: Message, headers: Mapping[str, Any], at: int | None) -> Span:
    """A span for a run, which is not made the active one."""
    return tracer().start_span(
        f"run {message.task_name}",
        context=context_of(headers),
        kind=SpanKind.CONSUMER,
        attributes=message.attributes("run", "process"),
        start_time=at,
    )


def run_was_lost(
    message: Message,
    headers: Mapping[str, Any],
    started: float | None,
    ending: str,
    error: tuple[str, str],
    stack: str,
) -> None:
    """A whole span for a run whose own span died with its process."""
    span = begin_run(message, headers, int(started * 1e9) if started else None)
    kind, says = error
    said = {
        "exception.type": kind,
        "exception.message": says,
        "exception.stacktrace": stack[-MOST_TEXT:],
    }
    span.add_event("exception", {name: text for name, text in said.items() if text})
    span.set_attribute("unstuck.ending", ending)
    span.set_status(Status(StatusCode.ERROR, says or ending))
    span.end(time.time_ns())
