"""The log of a node: one line an event, the task in each, on every pool."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.conftest import MakeSite
from tests.node import Node
from tests.waiting import eventually

MODULE = "tests.project.tracing"
SAID = (
    "by a logger of its module",
    "by Celery's logger",
    "by another one",
    "by print\\nin two lines",
    "with a traceback",
)


def send(node: Node, name: str) -> str:
    """Send a task, and wait until it has ended."""
    with node.site.client() as app:
        task_id = str(app.send_task(f"{MODULE}.{name}").id)
    eventually(lambda: _has_ended(node, task_id), 30)
    return task_id


def _has_ended(node: Node, task_id: str) -> bool:
    lines = [line for line in node.log().splitlines() if task_id in line]
    return any("succeeded" in line or "is buried" in line for line in lines)


def test_each_plain_line_of_a_task_names_it(redis_site: MakeSite) -> None:
    """By whichever logger, `print` and tracebacks included; each is one line."""
    with redis_site().node("-I", MODULE) as node:
        task_id = send(node, "say")
        log = node.log()

    of_task = f"{MODULE}.say[{task_id}]: "
    lines = log.splitlines()
    for text in SAID:
        (line,) = [line for line in lines if text in line]
        assert of_task in line, line
    (traceback,) = [line for line in lines if "with a traceback" in line]
    assert r"\nTraceback (most recent call last):\n" in traceback
    assert f"Task {MODULE}.say[{task_id}] succeeded in" in log
    assert "ERROR/child-" in traceback
    assert "INFO/main] " in log


def test_each_line_is_json(redis_site: MakeSite) -> None:
    """From the first to the last, of all processes of the node."""
    site = redis_site(UNSTUCK={"LOGS": "json", "MAX_STRIKES": 1})
    with site.node("-I", MODULE, "-B", "-s", str(site.directory / "beat")) as node:
        said, died = send(node, "say"), send(node, "die")
        node.send(15)
        assert node.wait() == 0
        log = node.log()

    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    assert all(
        {"time", "level", "logger", "text", "pid"} <= line.keys() for line in lines
    )
    roles = {line["process"] for line in lines}
    assert {"main", "child", "beat"} <= roles
    ours = [line for line in lines if line.get("task_id") == said]
    texts = {line["text"]: line for line in ours}
    for text in SAID:
        assert texts[text.replace("\\n", "\n")]["process"] == "child"
    assert texts["with a traceback"]["exception"]["message"] == "no"
    assert {line["task_name"] for line in ours} == {f"{MODULE}.say"}
    (buried,) = [line for line in lines if line["text"] == "Task is buried"]
    assert (buried["task_id"], buried["process"]) == (died, "main")
    assert buried["fields"]["reason"] == "poison"


def test_a_project_may_set_its_log_up_itself(redis_site: MakeSite) -> None:
    """By Celery's signal, on any pool; ours is not in its way."""
    modules = f"{MODULE},tests.project.own_logs"
    with redis_site().node("-I", modules, pool="threads", ready=False) as node:
        eventually(lambda: "OWN" in node.log() and "ready." in node.log(), 40)
        task_id = send(node, "say")
        log = node.log()

    (line,) = [line for line in log.splitlines() if SAID[0] in line]
    assert line == f"OWN {task_id} {SAID[0]}"
