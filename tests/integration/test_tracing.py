"""One trace from the call of a task to the run of its replay, over all processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeSite
from tests.node import Site
from tests.project.tracing import SPANS
from tests.waiting import eventually

MODULE = "tests.project.tracing"
ON = {"TRACING": f"{MODULE}.provider", "MAX_STRIKES": 1, "LOGS": "json"}

Span = dict[str, Any]


@pytest.fixture
def spans_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "spans"
    path.touch()
    monkeypatch.setenv(SPANS, str(path))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    return path


@pytest.fixture
def site(streams_site: MakeSite) -> Site:
    return streams_site(UNSTUCK=ON)


def call(site: Site, *tasks: str) -> list[tuple[str, str]]:
    """Call tasks in a process of the project, each within a span: ids and traces."""
    called = site.python(
        "from opentelemetry import trace\n"
        "from unstuck.tracing import flush\n"
        "from unstuck.tracing.provider import tracer\n"
        f"import {MODULE} as tasks\n"
        "answer = []\n"
        f"for name in {tasks!r}:\n"
        "    with tracer().start_as_current_span('a request') as span:\n"
        "        result = getattr(tasks, name).delay()\n"
        "    trace_id = span.get_span_context().trace_id\n"
        "    answer.append([result.id, format(trace_id, '032x')])\n"
        "flush()"
    )
    return [(task_id, trace) for task_id, trace in called]


def replay(site: Site, task_id: str) -> None:
    """Replay the letter of a task."""
    site.letter(task_id)
    site.python(
        "from unstuck.letters.replay import replay\n"
        "from unstuck.models import DeadLetter\n"
        "from unstuck.tracing import flush\n"
        f"letter = DeadLetter.objects.get(task_id={task_id!r})\n"
        "answer = replay(app, letter.stored_message(), task_id='again')\n"
        "flush()"
    )


def spans_of(path: Path, trace: str, count: int) -> list[Span]:
    """The spans of a trace in the order in which they began, once they are so many."""

    def find() -> list[Span]:
        lines = path.read_text().splitlines()
        found = [
            span
            for span in map(json.loads, lines)
            if span["context"]["trace_id"] == f"0x{trace}"
        ]
        assert len(found) >= count, [span["name"] for span in found]
        return sorted(found, key=lambda span: str(span["start_time"]))

    return eventually(find, 40)


def parent(spans: list[Span], span: Span) -> str:
    """The name of the span that another one is a part of."""
    (found,) = [s for s in spans if s["context"]["span_id"] == span["parent_id"]]
    return str(found["name"])


def test_one_trace_from_the_call_to_the_replay(site: Site, spans_file: Path) -> None:
    """Over all processes, and whatever becomes of them."""
    with site.node("-I", MODULE) as node:
        ((failed, trace),) = call(site, "fail_twice")
        replay(site, failed)
        found = spans_of(spans_file, trace, 11)
        # A killed process takes along what it has not sent, of others as well.
        (_, hung), (_, died) = call(site, "hang", "die")
        hard = spans_of(spans_file, hung, 4)
        lost = spans_of(spans_file, died, 4)
        log = [json.loads(line) for line in node.log().splitlines()]

    check_the_way_of_a_task(found, failed)
    check_a_killed_run(hard, "hang", "hard_limit", "TimeLimitExceeded")
    check_a_killed_run(lost, "die", "child_lost", "SIGKILL")
    first_run = found[2]["context"]
    said = next(line for line in log if line["text"] == "it fails")
    assert said["trace_id"] == trace
    assert said["span_id"] == first_run["span_id"].removeprefix("0x")


def check_the_way_of_a_task(found: list[Span], task_id: str) -> None:
    """Call, run, retry, run, letter, and all again by the replay."""
    task = f"{MODULE}.fail_twice"
    retried = [f"run {task}", f"publish {task}", f"run {task}", f"bury {task}"]
    assert [span["name"] for span in found] == [
        *("a request", f"publish {task}", *retried),
        *(f"replay {task}", *retried),
    ]
    assert [parent(found, span) for span in found[1:7]] == [
        "a request",
        f"publish {task}",  # the run
        f"run {task}",  # the publishing of its retry
        f"publish {task}",  # and its run
        f"publish {task}",  # the letter, of the message that failed
        f"publish {task}",  # the replay, of that message
    ]
    assert parent(found, found[7]) == f"replay {task}"
    runs = [span for span in found if span["name"] == f"run {task}"]
    assert [run["attributes"]["unstuck.attempt"] for run in runs] == [1, 2, 1, 2]
    codes = [run["status"]["status_code"] for run in runs]
    assert codes == ["UNSET", "ERROR"] * 2
    assert {run["kind"] for run in runs} == {"SpanKind.CONSUMER"}
    assert found[1]["kind"] == "SpanKind.PRODUCER"
    assert found[1]["attributes"] == {
        "messaging.system": "redis",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "celery",
        "messaging.message.id": task_id,
        "celery.task_name": task,
        "unstuck.attempt": 1,
    }
    processes = {run["resource"]["attributes"]["process.pid"] for run in runs}
    assert found[1]["resource"]["attributes"]["process.pid"] not in processes


def check_a_killed_run(found: list[Span], name: str, ending: str, says: str) -> None:
    """Main records what the process of the task did not live to."""
    what = f"{MODULE}.{name}"
    names = [span["name"] for span in found]
    assert names == ["a request", f"publish {what}", f"run {what}", f"bury {what}"]
    run = found[2]
    assert run["attributes"]["unstuck.ending"] == ending
    assert run["status"]["status_code"] == "ERROR"
    assert says in json.dumps([run["status"], run["events"]])
    assert parent(found, run) == f"publish {what}"
