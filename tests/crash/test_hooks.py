"""What Celery does for a failure is done for hard limits and losses, once and aside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.crash.chaos import SOAK
from tests.crash.traces import Row, pid_of, send, send_all, wait_for_burials, worker
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
def calls(module_site: MakeSite) -> Calls:
    """A failure, a hard limit and a loss in one worker, and which hooks they called."""
    site = module_site(**SETTINGS)
    with worker(site, "-c", "3") as node, site.client() as app:
        args, kwargs = ARGUMENTS
        links = [
            app.signature(f"tests.project.hangs.{name}")
            for name in ("errback", "errback_as_task")
        ]
        ids = {
            name: str(
                app.send_task(
                    f"tests.project.hangs.{name}", args, kwargs, link_error=links
                ).id
            )
            for name in ERRORS
        }
        wait_for_burials(node, len(ids))
        for task_id in ids.values():
            eventually(lambda t=task_id: len(site.events("hook", id=t)) >= 5, 30)
        # Whatever would call a hook once more would do so before these are done.
        for after in send_all(site, [("nothing", [])] * 6):
            site.result(app, after)
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


@pytest.fixture
def node_of_hooks(
    redis_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Node]:
    """A worker with one slot, whose hooks have less time than 30 seconds."""
    monkeypatch.setenv(HOOK_SECONDS, str(LIMIT_OF_HOOKS))
    site = redis_site(**SETTINGS)
    with worker(site, "-c", "1") as node:
        yield node


def test_a_hook_that_hangs_delays_nobody(node_of_hooks: Node) -> None:
    """Letters, results and the next tasks come at once; the hook is killed in time."""
    site = node_of_hooks.site
    names = ["hang_in_hook_after_loss", "hang_in_hook_after_hang"]
    ids = [send(site, name) for name in [*names, names[0]]]
    with site.client() as app:
        hanging = [
            eventually(lambda t=task_id: site.events("hanging", id=t), 30)[0]
            for task_id in ids
        ]
        for after in send_all(site, [("nothing", [])] * 3):
            site.result(app, after)
        assert {app.backend.get_state(task_id) for task_id in ids} == {"FAILURE"}
        for task_id in ids:
            site.letter(task_id)
    pids = [event["pid"] for event in hanging]
    served = max(event["at"] for event in site.events("run"))

    eventually(lambda: not alive(pids), LIMIT_OF_HOOKS + 15)

    log = node_of_hooks.log()
    assert len(set(pids)) == len(ids)
    assert served < hanging[0]["at"] + LIMIT_OF_HOOKS
    assert log.count(f"took longer than {float(LIMIT_OF_HOOKS)} s: killed") == 3
    assert site.events("awake") == []
    assert len(site.events("hanging")) == len(ids)
    with site.client() as app:
        site.result(app, send(site, "nothing"))


def test_a_hook_that_raises_or_dies_is_not_run_again(node_of_hooks: Node) -> None:
    """One that raises keeps no other from being called; both leave a line in the log."""
    site = node_of_hooks.site
    raising, dying = send(site, "raise_in_hook"), send(site, "die_in_hook")
    with site.client() as app:
        eventually(lambda: len(site.events("hook", id=raising)) >= 3, 30)
        eventually(lambda: site.events("hook", id=dying), 30)
        for after in send_all(site, [("nothing", [])] * 4):
            site.result(app, after)
        assert app.backend.get_state(raising) == "FAILURE"
        assert app.backend.get_state(dying) == "FAILURE"
    eventually(lambda: "killed by SIGKILL from outside" in node_of_hooks.log(), 20)

    def hooks(task_id: str) -> list[str]:
        return [event["hook"] for event in site.events("hook", id=task_id)]

    assert hooks(raising) == ["on_failure", "after_return", "task_failure"]
    assert hooks(dying) == ["on_failure"]
    assert "RuntimeError: in a hook" in node_of_hooks.log()
    assert site.letter(raising)["reason"] == "poison"
    assert site.letter(dying)["reason"] == "poison"
