"""One trace from the call of a task to its last run, with OpenTelemetry.

Here is what everybody may call at any time: it does nothing, and imports nothing, unless
``UNSTUCK["TRACING"]`` says so and the extra ``unstuck[otel]`` is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from unstuck import conf
from unstuck.core.errors import SettingsError
from unstuck.tracing import guard
from unstuck.tracing.about import Message, broker_of

__all__ = [
    "Message",
    "broker_of",
    "burying",
    "flush",
    "ids",
    "install",
    "is_installed",
    "is_on",
    "publishing",
    "run_was_lost",
    "waiting_for_lock",
    "within",
]

FLUSH_SECONDS = 2.0
"""How long a process that ends waits for what it has recorded to be sent."""


def is_on() -> bool:
    """Whether spans are recorded."""
    try:
        return bool(conf.current().tracing) and is_installed()
    except SettingsError:
        return False


@functools.cache
def is_installed() -> bool:
    """Whether the extra is there."""
    try:
        return importlib.util.find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def install() -> None:
    """Have runs of tasks recorded in this process and what it forks."""
    if is_on():
        from unstuck.tracing import runs

        runs.install()


def publishing(
    message: Message, *, again: Mapping[str, Any] | None = None
) -> AbstractContextManager[Mapping[str, str]]:
    """Within, a message is published; gives the headers that carry its trace.

    ``again`` are the headers of an earlier message, whose trace goes on.
    """
    if not is_on():
        return nullcontext({})
    from unstuck.tracing import spans

    return guard.harmless(lambda: spans.publishing(message, again), {})


def within(headers: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Within, what happens is part of the trace of the message with these headers."""
    if not is_on():
        return nullcontext()
    from unstuck.tracing import spans

    return guard.harmless(lambda: spans.within(headers), None)


def burying(
    message: Message, headers: Mapping[str, Any], reason: str
) -> AbstractContextManager[None]:
    """Within, the message with these headers is made a dead letter."""
    if not is_on():
        return nullcontext()
    from unstuck.tracing import spans

    return guard.harmless(lambda: spans.burying(message, headers, reason), None)


def waiting_for_lock(name: str, holder: str) -> AbstractContextManager[None]:
    """Within, a lock is waited for; ``holder`` is the id of the task that has it."""
    if not is_on():
        return nullcontext()
    from unstuck.tracing import spans

    return guard.harmless(lambda: spans.waiting_for_lock(name, holder), None)


def run_was_lost(
    message: Message,
    headers: Mapping[str, Any],
    *,
    started: float | None,
    ending: str,
    error: tuple[str, str],
    stack: str = "",
) -> None:
    """Record a run whose process did not live to do so.

    ``started`` is in seconds since the epoch, ``error`` its type and what it says.
    """
    if not is_on():
        return
    from unstuck.tracing import spans

    try:
        spans.run_was_lost(message, headers, started, ending, error, stack)
    except Exception as raised:
        guard.say(raised)


def ids() -> dict[str, str]:
    """The trace and the span that are active here, whoever made them."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    here = trace.get_current_span().get_span_context()
    if not here.is_valid:
        return {}
    return {"trace_id": f"{here.trace_id:032x}", "span_id": f"{here.span_id:016x}"}


def flush() -> None:
    """At the end of a process: send what is recorded, but do not wait for long."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not is_on():
        return
    send = getattr(trace.get_tracer_provider(), "force_flush", None)
    if send is not None:
        # It may wait for a collector that does not answer, however long it is given.
        thread = threading.Thread(target=send, name="unstuck flush", daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)
