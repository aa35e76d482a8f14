"""Spans as they are made in one process; over all of them: integration/test_tracing.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import signals
from celery.exceptions import Ignore
from django.test import override_settings
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from unstuck import Celery, tracing
from unstuck.locks import waiting
from unstuck.locks.backend import Busy, Held, Owner, Taken
from unstuck.tracing import provider, runs, spans

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, SPAN = TRACEPARENT.split("-")[1:3]


class Spans:
    """What was recorded, and a tracer for more."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        own = TracerProvider()
        own.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = own.get_tracer("tests")

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    @property
    def one(self) -> ReadableSpan:
        (span,) = self.all
        return span


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """Tracing is on, and its spans stay here."""
    own = Spans()
    monkeypatch.setattr(spans, "tracer", lambda: own.tracer)
    with override_settings(UNSTUCK={"TRACING": True}):
        runs.install()
        yield own
    signals.task_prerun.disconnect(runs._begin, dispatch_uid="unstuck_begin_span")
    signals.task_postrun.disconnect(runs._end, dispatch_uid="unstuck_end_span")


def message() -> tracing.Message:
    return tracing.Message(task_id="1", task_name="shop.pay", queue="celery")


def messages(app: Celery) -> list[dict[str, Any]]:
    """The headers of what waits on the broker."""
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        return [queue.get(block=False).headers for _ in range(queue.qsize())]


def test_a_message_carries_the_trace_of_its_caller(
    app: Celery, recorded: Spans
) -> None:
    """Also many at once, and the second of two: each has a span of its own."""

    @app.task(shared=False, name="shop.pay")
    def pay(*_: Any) -> None: ...

    with recorded.tracer.start_as_current_span("request") as request:
        pay.delay()
        pay.delay()
        pay.delay_many([(1,), (2,)])

    carried = [headers["traceparent"].split("-")[1:3] for headers in messages(app)]
    published = [span for span in recorded.all if span.name == "publish shop.pay"]
    assert carried == [
        [f"{s.context.trace_id:032x}", f"{s.context.span_id:016x}"] for s in published
    ]
    assert len(published) == 4
    assert {s.parent and s.parent.span_id for s in published} == {
        request.get_span_context().span_id
    }


def test_nothing_is_carried_when_it_is_off(app: Celery) -> None:
    """Though somebody else traces."""

    @app.task(shared=False, name="shop.pay")
    def pay() -> None: ...

    with Spans().tracer.start_as_current_span("request"):
        pay.delay()

    assert "traceparent" not in messages(app)[0]


@pytest.mark.parametrize(
    ("error", "code", "event"),
    [
        (None, "UNSET", None),
        (ValueError("no"), "ERROR", "exception"),
        (Ignore("not today"), "UNSET", "ignored"),
    ],
)
def test_a_run_is_a_part_of_the_trace_of_its_message(
    app: Celery,
    recorded: Spans,
    error: Exception | None,
    code: str,
    event: str | None,
) -> None:
    """And is the active span within; how it ended is said."""
    active: list[dict[str, str]] = []

    @app.task(shared=False, name="shop.pay")
    def pay() -> None:
        active.append(tracing.ids())
        if error is not None:
            raise error

    pay.apply(headers={"traceparent": TRACEPARENT}, retries=2)

    run = recorded.one
    assert run.name == "run shop.pay"
    assert run.status.status_code.name == code
    assert [e.name for e in run.events] == ([event] if event else [])
    assert run.attributes is not None
    assert run.attributes["unstuck.attempt"] == 3
    assert active[0]["span_id"] == f"{run.context.span_id:016x}"
    assert tracing.ids() == {}


@pytest.mark.usefixtures("recorded")
def test_what_is_no_trace_does_no_harm() -> None:
    """Headers come from outside."""
    for odd in ({"traceparent": 7}, {"traceparent": "x"}, {"tracestate": []}):
        with tracing.within(odd):
            assert tracing.ids() == {}


def test_what_main_does_for_a_task_is_of_its_trace(recorded: Spans) -> None:
    """Hooks, its retry, its letter, and the run that it could not end itself."""
    headers = {"traceparent": TRACEPARENT}
    with tracing.within(headers):
        assert tracing.ids() == {"trace_id": TRACE, "span_id": SPAN}
    with tracing.burying(message(), headers, "poison"):
        pass
    tracing.run_was_lost(
        *(message(), headers),
        started=1.5,
        ending="hard_limit",
        error=("TimeLimitExceeded", "60"),
        stack="File …",
    )

    bury, run = recorded.all
    assert [span.name for span in recorded.all] == ["bury shop.pay", "run shop.pay"]
    for span in recorded.all:
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == SPAN
    assert (bury.attributes or {})["unstuck.reason"] == "poison"
    assert (run.attributes or {})["unstuck.ending"] == "hard_limit"
    assert run.start_time == 1_500_000_000
    assert run.end_time is not None
    assert run.status.description == "60"
    assert (run.events[0].attributes or {})["exception.stacktrace"] == "File …"


def test_a_replay_is_linked_to_who_asked_for_it(recorded: Spans) -> None:
    """It belongs to the trace of its letter."""
    with (
        recorded.tracer.start_as_current_span("a click") as click,
        tracing.publishing(message(), again={"traceparent": TRACEPARENT}) as carried,
    ):
        pass

    replayed = recorded.all[0]
    assert replayed.name == "replay shop.pay"
    assert f"{replayed.context.trace_id:032x}" == TRACE
    assert carried["traceparent"].split("-")[1] == TRACE
    assert replayed.links[0].context == click.get_span_context()


class OneTurn:
    """A lock that is free when it is asked for the second time."""

    def __init__(self) -> None:
        owner = Owner(token="t", born=0.0, pid=1, node="n", task_id="other")
        held = Held(name="l", owner=owner, since=0.0, fence=1, seconds_left=1.0)
        self.answers: list[Busy | Taken] = [Busy(held), Taken(2)]

    def take(self, *_: Any, **__: Any) -> Busy | Taken:
        return self.answers.pop(0)

    def wait(self, *_: Any) -> None: ...


def test_waiting_for_a_lock_is_a_span(recorded: Spans) -> None:
    """With its name, and the task that has it."""
    backend: Any = OneTurn()
    me = Owner(token="m", born=1.0, pid=1, node="n")
    assert waiting.take(backend, "report", me, lease=1.0, wait=5.0) == 2

    assert recorded.one.attributes == {
        "unstuck.lock": "report",
        "unstuck.lock.holder": "other",
    }


def test_without_the_extra_nothing_is_traced(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check says so; a call is not the place to fail."""
    monkeypatch.setattr(tracing, "is_installed", lambda: False)

    @app.task(shared=False, name="shop.pay")
    def pay() -> None: ...

    with override_settings(UNSTUCK={"TRACING": True}):
        pay.delay()

    assert "traceparent" not in messages(app)[0]


CODE = """
import django
from django.conf import settings
settings.configure(UNSTUCK={"TRACING": %r})
import unstuck
app = unstuck.Celery("x", broker="memory://")
app.conf.broker_url
import sys
print(sorted(m for m in sys.modules if m.startswith("opentelemetry"))[:1])
from unstuck import tracing
if tracing.is_on():
    from unstuck.tracing.provider import tracer
    with tracer().start_as_current_span("seen"):
        pass
    tracing.flush()
"""


@pytest.mark.parametrize("on", [False, True])
def test_true_means_what_the_environment_says(on: bool) -> None:
    """As with `opentelemetry-instrument`; off, OpenTelemetry is not imported."""
    done = subprocess.run(
        [sys.executable, "-c", CODE % on],
        env={**os.environ, "OTEL_TRACES_EXPORTER": "console"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    first, _, rest = done.stdout.partition("\n")
    assert (first == "['opentelemetry']") is on
    assert ('"name": "seen"' in rest) is on


def test_an_exporter_that_is_not_there_costs_no_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what to install; spans are made, and carried."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier/pigeon")
    with override_settings(UNSTUCK={"TRACING": True}):
        made = provider._made()

    assert isinstance(made, TracerProvider)
    assert "Install opentelemetry-exporter-otlp" in caplog.text


ODD = {"traceparent": TRACEPARENT, "baggage": "a=\ud800"}


def test_odd_headers_do_not_decide_about_a_message(recorded: Spans) -> None:
    """They are what somebody has sent."""
    with tracing.burying(message(), ODD, "failed"), tracing.within(ODD):
        tracing.run_was_lost(
            message(), ODD, started=None, ending="hard_limit", error=("", "")
        )

    assert len(recorded.all) == 2


@pytest.mark.parametrize("where", ["made", "entered", "left"])
def test_a_span_that_fails_does_not_either(
    recorded: Spans, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whatever a processor of the project's raises; what is within is done once."""

    @contextmanager
    def failing(*_: Any) -> Iterator[None]:
        if where == "entered":
            raise RuntimeError(where)
        yield
        raise RuntimeError(where)

    def made(*_: Any) -> Any:
        raise RuntimeError(where)

    monkeypatch.setattr(spans, "burying", made if where == "made" else failing)
    monkeypatch.setattr(spans, "run_was_lost", made)
    done = []
    with tracing.burying(message(), {}, "failed"):
        done.append(where)
    tracing.run_was_lost(message(), {}, started=None, ending="lost", error=("", ""))

    assert done == [where]


def test_an_error_within_a_span_is_raised_as_it_is(recorded: Spans) -> None:
    """And is the span's."""
    with (
        pytest.raises(KeyError, match="paid"),
        tracing.burying(message(), {}, "failed"),
    ):
        raise KeyError("paid")

    assert recorded.one.status.status_code.name == "ERROR"
