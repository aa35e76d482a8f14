"""What Celery does for a failure is done for hard limits and losses, once and aside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker import request as celery_request

from tests.crash.chaos import SOAK
from tests.crash.traces import (
    MODULE,
    Row,
    by_task,
    finish,
    pid_of,
    rows,
    send,
    send_all,
    worker,
)
from tests.node import Node, Site
from tests.processes import alive
from tests.project.hangs import HOOK_SECONDS
from tests.sites import MakeSite
from tests.waiting import eventually

SETTINGS = {"UNSTUCK": {"MAX_STRIKES": 1}, "CELERY_TASK_SOFT_TIME_LIMIT": None}
"""The first loss is the last, and what hangs does so until its hard limit."""

LIMIT_OF_HOOKS = 30 if SOAK else 5
"""The real one; and a shorter one, to be quick."""

ARGUMENTS: tuple[list[Any], dict[str, Any]] = ([1, "two"], {"three": [3]})
HOOKS = ["after_return", "errback", "errback_as_task", "on_failure", "task_failure"]

ERRORS = {
    "hooked_failure": "ValueError",
    "hooked_hang": "TimeLimitExceeded",
    "hooked_loss": "WorkerLostError",
}
KILLED = ("hooked_hang", "hooked_loss")


class Calls:
    """The calls of hooks that one worker has made for a failure of each kind."""

    def __init__(self, site: Site, ids: dict[str, str], main: int) -> None:
        self.main = main
        self.pids = {name: pid_of(site, task_id) for name, task_id in ids.items()}
        self.calls = {
            name: {call["hook"]: call for call in site.events("hook", id=task_id)}
            for name, task_id in ids.items()
        }
        self.names = {
            name: sorted(call["hook"] for call in site.events("hook", id=task_id))
            for name, task_id in ids.items()
        }
        self.results = {name: result_of(site, task_id) for name, task_id in ids.items()}


def result_of(site: Site, task_id: str) -> Row:
    """What the result store has."""
    with site.client() as app:
        meta = app.backend.get_task_meta(task_id)
    return {
        "status": meta["status"],
        "error": type(meta["result"]).__name__,
        "traceback": meta["traceback"],
    }


@pytest.fixture(scope="module")
def node(module_site: MakeSite) -> Iterator[Node]:
    """A worker with one slot, whose hooks have less time than 30 seconds."""
    site = module_site(**SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOOK_SECONDS, str(LIMIT_OF_HOOKS))
        with worker(site, "-c", "1") as node:
            yield node


@pytest.fixture(scope="module")
def calls(node: Node) -> Calls:
    """A failure, a hard limit and a loss, and which hooks they called."""
    site = node.site
    args, kwargs = ARGUMENTS
    with site.client() as app:
        links = [
            app.signature(f"{MODULE}.{name}") for name in ("errback", "errback_as_task")
        ]
        sent = {
            name: app.send_task(f"{MODULE}.{name}", args, kwargs, link_error=links)
            for name in ERRORS
        }
        ids = {name: str(result.id) for name, result in sent.items()}
    for task_id in ids.values():
        eventually(lambda t=task_id: len(site.events("hook", id=t)) >= 5, 30)
    # Whatever would call a hook once more would do so before these are done.
    finish(site, send_all(site, [("nothing", [])] * 4))
    return Calls(site, ids, node.main)


@pytest.mark.parametrize("name", ERRORS)
def test_each_hook_is_called_once(calls: Calls, name: str) -> None:
    """`on_failure`, `after_return`, `task_failure`, and errbacks of both kinds."""
    assert calls.names[name] == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", KILLED)
def test_a_hook_learns_what_it_learns_of_a_failure(
    calls: Calls, name: str, hook: str
) -> None:
    """The same arguments and the same request; but the error is that of the killing."""
    own = {"pid", "at", "id", "request", "error", "traceback"}
    of_failure, of_killed = calls.calls["hooked_failure"][hook], calls.calls[name][hook]

    def shared(call: Row) -> Row:
        return {key: value for key, value in call.items() if key not in own}

    assert shared(of_killed) == shared(of_failure)
    assert of_killed.keys() == of_failure.keys()
    if "error" in of_killed:
        assert of_killed["error"] == ERRORS[name]
        assert of_killed["request"] == of_killed["id"]
        assert (of_killed["args"], of_killed["kwargs"]) == ARGUMENTS


@pytest.mark.parametrize("hook", ["errback", "on_failure", "task_failure"])
@pytest.mark.parametrize("name", KILLED)
def test_a_hook_learns_where_the_task_stood(calls: Calls, name: str, hook: str) -> None:
    """The stack stands where a failure has its traceback."""
    traceback = calls.calls[name][hook]["traceback"]

    assert f"in {name}  <-- here" in traceback
    assert "# here" in traceback


@pytest.mark.parametrize("name", ERRORS)
def test_the_result_is_a_failure(calls: Calls, name: str) -> None:
    """With the error and the stack."""
    result = calls.results[name]

    assert result["status"] == "FAILURE"
    assert result["error"] == ERRORS[name]
    assert f"in {name}" in result["traceback"]


@pytest.mark.parametrize("name", KILLED)
def test_hooks_run_neither_in_main_nor_in_what_was_killed(
    calls: Calls, name: str
) -> None:
    """All of one failure run in the same child, which is a fresh one."""
    pids = {
        call["pid"]
        for hook, call in calls.calls[name].items()
        if hook != "errback_as_task"
    }

    assert len(pids) == 1
    assert calls.main not in pids
    assert calls.pids[name] not in pids


# Hooks that do harm.


def test_a_hook_that_hangs_delays_nobody(node: Node) -> None:
    """Letters, results and the next tasks come at once; the hook is killed in time."""
    site = node.site
    names = ["hang_in_hook_after_loss", "hang_in_hook_after_hang"] * 2
    ids = send_all(site, [(name, []) for name in names])
    hanging = [
        eventually(lambda t=task_id: site.events("hanging", id=t), 30)[0]
        for task_id in ids
    ]
    after = send_all(site, [("nothing", [])] * 3)
    finish(site, after)
    by_task(site, "DeadLetter", ids)
    states = {result_of(site, task_id)["status"] for task_id in ids}
    served = max(site.events("run", id=task_id)[0]["at"] for task_id in after)
    pids = [event["pid"] for event in hanging]

    eventually(lambda: not alive(pids), LIMIT_OF_HOOKS + 15)

    finish(site, [send(site, "nothing")])
    assert states == {"FAILURE"}
    assert len(set(pids)) == len(ids)
    assert served < min(event["at"] for event in hanging[-2:]) + LIMIT_OF_HOOKS
    for task_id in ids:
        assert len(site.events("hanging", id=task_id)) == 1
        assert site.events("awake", id=task_id) == []
        assert site.events("hook", id=task_id) == []
    too_long = f"hook took too long and is killed: .* seconds={float(LIMIT_OF_HOOKS)}"
    assert len(re.findall(too_long, node.log())) == len(ids)


def test_a_hook_that_raises_keeps_no_other_from_being_called(node: Node) -> None:
    """And leaves its traceback in the log."""
    site = node.site
    task_id = send(site, "raise_in_hook")
    eventually(lambda: len(site.events("hook", id=task_id)) >= 3, 30)
    finish(site, send_all(site, [("nothing", [])] * 3))

    called = [event["hook"] for event in site.events("hook", id=task_id)]
    assert called == ["on_failure", "after_return", "task_failure"]
    assert "RuntimeError: in a hook" in node.log()
    assert result_of(site, task_id)["status"] == "FAILURE"
    assert site.letter(task_id)["reason"] == "poison"


def test_a_hook_that_kills_its_process_is_not_called_again(node: Node) -> None:
    """Its death leaves a line in the log, and the task its letter."""
    site = node.site
    task_id = send(site, "die_in_hook")
    [call] = eventually(lambda: site.events("hook", id=task_id), 30)
    eventually(lambda: not alive([call["pid"]]), 20)
    finish(site, send_all(site, [("nothing", [])] * 3))

    [call] = site.events("hook", id=task_id)
    assert call["hook"] == "on_failure"
    assert f'A hook raised: hook="record_failure of {MODULE}.die_in_hook"' in node.log()
    assert result_of(site, task_id)["status"] == "FAILURE"
    assert site.letter(task_id)["reason"] == "poison"


@pytest.mark.skipif(
    not hasattr(celery_request.Request, "_success_was_stored"),
    reason="only Celery 5.7 and later ask the result store",
)
def test_a_hook_that_hangs_after_a_success_does_not_undo_it(node: Node) -> None:
    """What has stored its success ends as one, though it is killed afterwards."""
    site = node.site
    task_id = send(site, "hang_in_hook_after_success")
    eventually(lambda: "had succeeded when it was stopped" in node.log(), 30)
    finish(site, send_all(site, [("nothing", [])] * 3))

    assert result_of(site, task_id)["status"] == "SUCCESS"
    assert len(site.events("run", id=task_id)) == 1
    assert rows(site, "DeadLetter", task_id=task_id) == []
