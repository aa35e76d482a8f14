"""A loss has a cause, a stack where there can be one, and what the process had used."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.crash.traces import (
    Row,
    by_task,
    marked,
    pid_of,
    runs_of,
    send,
    send_all,
    wait_for_burials,
    worker,
)
from tests.processes import alive
from tests.project.hangs import MIB
from tests.sites import MakeSite
from tests.waiting import eventually

FIRST_LOSS_IS_THE_LAST = {"UNSTUCK": {"MAX_STRIKES": 1}}
"""So that a letter tells of each loss at once."""

CAUSES: dict[tuple[str, Sequence[Any]], str] = {
    ("segfault", ()): r"crashed with SIGSEGV \(segmentation fault\)",
    ("abort", ()): r"crashed with SIGABRT \(aborted\)",
    ("leave", (7,)): "exited with code 7",
    ("leave", (0,)): "exited with code 0",
    ("exit_in_order", (3,)): "exited with code 3",
    ("use_up_the_cpu", ()): r"killed by SIGXCPU after \d+ s of CPU time",
    ("wait_for_a_signal", ("SIGKILL",)): "killed by SIGKILL from outside",
    ("wait_for_a_signal", ("SIGHUP",)): "killed by SIGHUP",
}

CRASHES = {"segfault": "Segmentation fault", "abort": "Aborted"}


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What one of them left behind."""

    letter: Row
    run: Row
    pid: int


@pytest.fixture(scope="module")
def losses(module_site: MakeSite) -> dict[str, Loss]:
    """One worker, all causes at once; by the name of the task and its argument."""
    site = module_site(**FIRST_LOSS_IS_THE_LAST)
    ids = dict(zip(CAUSES, send_all(site, CAUSES), strict=True))
    with worker(site, "-c", "4") as node:
        for (name, arguments), task_id in ids.items():
            if name == "wait_for_a_signal":
                pid = pid_of(site, task_id)
                os.kill(pid, signal.Signals[arguments[0]])
        wait_for_burials(node, len(CAUSES))
        letters = by_task(site, "DeadLetter", ids.values())
        runs = by_task(site, "TaskRun", ids.values())
        return {
            named(call): Loss(
                letter=letters[task_id],
                run=runs[task_id],
                pid=pid_of(site, task_id),
            )
            for call, task_id in ids.items()
        }


def named(call: tuple[str, Sequence[Any]]) -> str:
    """As in `leave(7)`."""
    name, arguments = call
    return f"{name}({', '.join(map(str, arguments))})"


EACH = [pytest.param(named(call), id=named(call)) for call in CAUSES]
BY_NAME = {named(call): cause for call, cause in CAUSES.items()}


@pytest.mark.parametrize("call", EACH)
def test_the_letter_says_why_the_process_ended(
    losses: dict[str, Loss], call: str
) -> None:
    """In words, and the run says the same."""
    letter, run = losses[call].letter, losses[call].run

    assert letter["reason"] == "poison"
    assert re.fullmatch(BY_NAME[call], letter["cause"])
    assert letter["exception_type"] == "billiard.exceptions.WorkerLostError"
    assert letter["cause"] in letter["exception_message"]
    assert run["ending"] == "child_lost"
    assert run["cause"] == letter["cause"]


@pytest.mark.parametrize("call", EACH)
def test_it_says_what_the_process_had_used(losses: dict[str, Loss], call: str) -> None:
    """Memory, CPU and age, as far as the parent has seen it."""
    letter, run = losses[call].letter, losses[call].run

    assert letter["pid"] == losses[call].pid
    assert letter["rss_bytes"] > 10 * MIB
    assert letter["cpu_seconds"] >= 0
    assert 0 < letter["child_age_seconds"] < 120
    assert letter["runtime_seconds"] <= letter["child_age_seconds"] + 1
    same = ("pid", "rss_bytes", "cpu_seconds", "child_age_seconds", "stack")
    assert {key: run[key] for key in same} == {key: letter[key] for key in same}


def test_cpu_seconds_are_those_of_the_whole_process(losses: dict[str, Loss]) -> None:
    """As the kernel has counted them when it was reaped."""
    assert losses["segfault()"].letter["cpu_seconds"] >= 0.5


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_leaves_the_stack_of_where_it_happened(
    losses: dict[str, Loss], name: str
) -> None:
    """faulthandler writes it in the last moment."""
    letter = losses[f"{name}()"].letter

    function, source = marked(letter["stack"])

    assert (function, source[-6:]) == (name, "# here")
    assert f"Fatal Python error: {CRASHES[name]}" in letter["stack"]
    assert f"{name} (project/hangs.py)" in letter["fingerprint"]


def test_each_loss_is_on_record(redis_site: MakeSite) -> None:
    """Also those after which the task has run again, each with its own process."""
    site = redis_site()
    with worker(site, "-c", "1"):
        task_id = send(site, "kill_itself")
        letter = site.letter(task_id, 60)
        runs = runs_of(site, task_id, 3)

    assert [run["verdict"] for run in runs] == ["requeue", "requeue", "bury"]
    assert [run["deliveries"] for run in runs] == [1, 2, 3]
    assert {run["cause"] for run in runs} == {"killed by SIGKILL from outside"}
    assert [run["pid"] for run in runs] == [
        event["pid"] for event in site.events("run", id=task_id)
    ]
    assert letter["pid"] == runs[-1]["pid"]


def test_what_somebody_ended_on_purpose_says_so(redis_site: MakeSite) -> None:
    """`revoke(terminate=True)`: no letter; the run tells the signal and that it was us."""
    site = redis_site()
    with worker(site, "-c", "1") as node, site.client() as app:
        task_id = send(site, "wait_for_a_signal")
        pid = pid_of(site, task_id)
        app.control.revoke(task_id, terminate=True, signal="SIGTERM")
        [run] = runs_of(site, task_id, 1)
        eventually(lambda: not alive([pid]), 20)
        after = send(site, "nothing")
        site.result(app, after)
        assert app.backend.get_state(task_id) == "REVOKED"
        assert "is buried as" not in node.log()

    assert run["ending"] == "revoked"
    assert run["cause"] == "ended by SIGTERM on request"


def test_a_shutdown_is_the_cause_of_what_it_cuts_off(redis_site: MakeSite) -> None:
    """The task goes back to the queue without a strike, and that is on record."""
    site = redis_site(CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT=0.5)
    with worker(site, "-c", "1") as node:
        task_id = send(site, "wait_for_a_signal")
        pid = pid_of(site, task_id)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        assert not alive([pid])
        [run] = runs_of(site, task_id, 1)

    assert run["verdict"] == "requeue"
    assert run["cause"] == "worker shut down"
    assert site.queue_lengths("celery") == {"celery": 1}


# Out of memory.


def test_the_oom_killer_is_named(redis_site: MakeSite, small_group: Path) -> None:
    """A cgroup that is full: the letter says so, and how much the process had."""
    site = redis_site(**FIRST_LOSS_IS_THE_LAST)
    enter = ("sh", "-c", f'echo $$ > {small_group}/cgroup.procs && exec "$@"', "sh")
    with worker(site, "-c", "1", prefix=enter):
        task_id = send(site, "eat")
        letter = site.letter(task_id, 60)
        pid = pid_of(site, task_id)

    assert re.fullmatch(
        r"out of memory \(killed by the kernel's OOM killer\): "
        rf"\d+ MiB of {GROUP_BYTES // MIB} MiB allowed",
        letter["cause"],
    )
    assert letter["reason"] == "poison"
    assert letter["pid"] == pid
    assert letter["rss_bytes"] > 10 * MIB


GROUP_BYTES = 512 * MIB
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Of cgroups of version 2 and 1; neither has the other's."""

SWAP = {"memory.swap.max": 0, "memory.memsw.limit_in_bytes": GROUP_BYTES}


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A cgroup with little memory below our own; needs the right to make one."""
    group = own_group() / f"unstuck-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no right to make a cgroup: {error}")
    try:
        limit = [group / name for name in LIMITS if (group / name).exists()]
        if not limit:
            pytest.skip("memory is not counted in cgroups below our own")
        limit[0].write_text(str(GROUP_BYTES))
        for name, size in SWAP.items():
            if (group / name).exists():
                (group / name).write_text(str(size))
        yield group
        eventually(lambda: not (group / "cgroup.procs").read_text(), 20)
    finally:
        group.rmdir()


def own_group() -> Path:
    """The directory of the cgroup that counts our memory."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
        if not controllers and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/")
    pytest.skip("no cgroup counts our memory")
