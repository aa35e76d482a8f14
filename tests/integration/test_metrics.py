"""`/metrics` of a real node: what it counted is what happened, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Mapping

import pytest

from tests.integration.sending import TASKS, send, send_raw
from tests.node import Node, Site
from tests.project import telemetry
from tests.sites import MakeSite
from tests.unit.metrics.scraped import Scraped
from tests.waiting import eventually
from unstuck.dev.ports import HOST, free_port

STALL_SECONDS = 8
SENT: Mapping[str, int] = {
    "add": 5,
    "fail": 3,
    "soft": 1,
    "soft_handled": 1,
    "hard": 1,
    "kill": 1,
}
ENDED: Mapping[tuple[str, str], int] = {
    ("add", "succeeded"): 5,
    ("fail", "failed"): 3,
    ("soft", "soft_limit"): 1,
    ("soft_handled", "succeeded"): 1,
    ("hard", "hard_limit"): 1,
    # Three strikes.
    ("kill", "child_lost"): 3,
}
BURIED = {
    "failed": 3,
    "soft_limit": 1,
    "hard_limit": 1,
    "poison": 1,
    "unknown_task": 1,
    "undecodable": 1,
}


def scrape(port: int) -> Scraped:
    """As Prometheus does."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Scraped(reply.read().decode())


def by(seen: Scraped, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The series that are not 0, by these labels."""
    return {
        tuple(one.labels[label] for label in labels): one.value
        for one in seen.found(name)
        if one.value
    }


def is_counted(port: int, tasks: Mapping[tuple[str, str], int]) -> Scraped:
    """The scrape that has exactly this."""
    whole = {(TASKS + task, ending): count for (task, ending), count in tasks.items()}
    unread = {("(unknown)", "unknown_task"): 1, ("(unknown)", "undecodable"): 1}

    def agrees() -> Scraped:
        seen = scrape(port)
        ended = by(seen, "unstuck_tasks_ended_total", "task", "ending")
        assert ended == {**whole, **unread}
        return seen

    return eventually(agrees, 60)


def test_a_node_counts_what_happened(
    streams_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that end well and badly, then main killed and stopped: nothing goes back."""
    port = free_port()
    site = streams_site(
        UNSTUCK={
            "PROBE_ADDRESS": f"{HOST}:{port}",
            "METRICS": "task",
            "STALL_SECONDS": STALL_SECONDS,
            "UNKNOWN_TASK_PATIENCE_SECONDS": 0,
            "RELEASE": "r1",
            "METRICS_EXPORT": "tests.project.telemetry.exporter",
        }
    )
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
    monkeypatch.setenv(telemetry.VARIABLE, str(site.directory / "exported"))
    with site.node() as node:
        what_happened(site, port)
        main_killed(site, node, port)
        main_stopped(node, port)
        seen = scrape(port)
    exported_is(site, seen)


def what_happened(site: Site, port: int) -> None:
    """Counted by task, queue, ending and reason."""
    for name, times in SENT.items():
        for _ in range(times):
            send(site, name, *((1, 2) if name == "add" else ()))
    send(site, "nobody_knows")
    send_raw(site, b"{", task=f"{TASKS}add", id="bad", lang="py", argsrepr="()")

    seen = is_counted(port, ENDED)

    for reason, count in BURIED.items():
        assert seen.total("unstuck_letters_buried_total", reason=reason) == count
    assert seen.total("unstuck_letters_buried_total") == sum(BURIED.values())
    assert {one.labels["queue"] for one in seen.found("unstuck_tasks_ended_total")} == {
        "celery"
    }
    # A process that was killed leaves no run time.
    add = {"task": f"{TASKS}add"}
    assert seen.total("unstuck_task_run_seconds_count", **add) == 5
    soft = {"task": f"{TASKS}soft"}
    assert seen.total("unstuck_task_run_seconds_bucket", le="0.5", **soft) == 0
    assert seen.total("unstuck_task_run_seconds_bucket", le="+Inf", **soft) == 1
    assert seen.total("unstuck_task_wait_seconds_count") >= 10
    handled = {"task": f"{TASKS}soft_handled"}
    assert seen.total("unstuck_soft_limits_swallowed_total", **handled) == 1
    assert seen.total("unstuck_task_strikes_total") == 3
    assert seen.total("unstuck_messages_settled_total", verdict="requeue") == 2
    assert seen.total("unstuck_children_ended_total", cause="killed") == 3
    assert seen.total("unstuck_children_ended_total", cause="hard_limit") == 1
    assert seen.total("unstuck_node_well") == 3
    assert seen.found(
        "unstuck_node_info", release="r1", pool="unstuck.pool.prefork:TaskPool"
    )
    eventually(
        lambda: (
            scrape(port).total("unstuck_messages_taken_total")
            >= sum(SENT.values()) + 2 + 2
        ),
        30,
    )


def is_back(port: int, restarts: int) -> Scraped:
    """The scrape when main was started again so often, and is well."""

    def is_well() -> Scraped:
        seen = scrape(port)
        assert seen.total("unstuck_process_restarts_total", process="main") == restarts
        assert seen.total("unstuck_node_well") == 3
        return seen

    return eventually(is_well, 60)


def main_killed(site: Site, node: Node, port: int) -> None:
    """The next one goes on counting where it stopped."""
    os.kill(node.main, signal.SIGKILL)
    # What is sent before it could still be handed to the one that is dead.
    is_back(port, restarts=1)
    send(site, "add", 1, 2)

    seen = is_counted(port, {**ENDED, ("add", "succeeded"): 6})

    assert by(seen, "unstuck_process_restarts_total", "process") == {("main",): 1}
    assert by(seen, "unstuck_incidents_total", "kind") == {("main_lost",): 1}


def main_stopped(node: Node, port: int) -> None:
    """It answers at once, says so, and the counts stay."""
    main = node.main
    os.kill(main, signal.SIGSTOP)

    def says_so() -> Scraped:
        began = time.monotonic()
        seen = scrape(port)
        assert time.monotonic() - began < STALL_SECONDS
        assert seen.total("unstuck_node_state", state="main_silent") == 1
        return seen

    seen = eventually(says_so, 30)
    assert by(seen, "unstuck_node_well", "probe") == {("live",): 1}
    assert seen.total("unstuck_process_silent_seconds", process="main") > 2
    assert seen.total("unstuck_process_silent_seconds", process="supervisor") < 30
    assert seen.total("unstuck_tasks_ended_total", ending="succeeded") == 7
    # For a moment it goes on, to write where it stood.
    seen = is_back(port, restarts=2)
    assert seen.total("unstuck_incidents_total", kind="stall") == 1
    assert seen.total("unstuck_tasks_ended_total", ending="succeeded") == 7


def exported_is(site: Site, seen: Scraped) -> None:
    """What was sent at the very end has the same counts, since the node started."""
    last = (site.directory / "exported").read_text().splitlines()[-1]
    [resource] = json.loads(last)["resource_metrics"]
    [scope] = resource["scope_metrics"]
    sent = {metric["name"]: metric["data"] for metric in scope["metrics"]}

    assert resource["resource"]["attributes"]["service.instance.id"].startswith(
        "celery@"
    )
    ended = {
        (point["attributes"]["task"], point["attributes"]["ending"]): point["value"]
        for point in sent["unstuck_tasks_ended"]["data_points"]
        if point["value"]
    }
    assert ended == by(seen, "unstuck_tasks_ended_total", "task", "ending")
    runs = sent["unstuck_task_run_seconds"]["data_points"]
    assert sum(run["count"] for run in runs) == seen.total(
        "unstuck_task_run_seconds_count"
    )
    [started] = seen.found("unstuck_node_started_timestamp_seconds")
    assert {run["start_time_unix_nano"] for run in runs} == {int(started.value * 1e9)}
