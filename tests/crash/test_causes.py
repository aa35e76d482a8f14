"""A loss has a cause, a stack where there can be one, and what the process had used.

One worker, all losses at once: each test looks at what one of them left behind.
"""

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
    finish,
    marked,
    pid_of,
    rows,
    send,
    send_all,
    wait_for_burials,
    worker,
)
from tests.node import Site
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


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What all of them left behind."""

    losses: dict[str, Loss]
    """By the name of the task and its argument."""

    struck: Row
    """The letter of a task that has killed its process three times."""

    strikes: list[Row]
    struck_pids: list[int]
    revoked: Row
    """The run of a task that somebody has ended by remote control."""

    revoked_state: str
    cut_off: Row
    """The run of a task that the end of the worker has cut off."""

    exit_code: int
    left_alive: list[int]
    queued: dict[str, int]


@pytest.fixture(scope="module")
def traces(module_site: MakeSite) -> Traces:
    """One worker, all causes at once, its own end being the last of them."""
    site = module_site(
        **FIRST_LOSS_IS_THE_LAST, CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT=0.5
    )
    ids = dict(zip(CAUSES, send_all(site, CAUSES), strict=True))
    struck = send(site, "kill_itself")
    with worker(site, "-c", "4") as node:
        for (name, arguments), task_id in ids.items():
            if name == "wait_for_a_signal":
                os.kill(pid_of(site, task_id), signal.Signals[arguments[0]])
        revoked, revoked_state = revoke(site)
        wait_for_burials(node, len(CAUSES) + 1)
        letters = by_task(site, "DeadLetter", [*ids.values(), struck])
        cut_off = send(site, "wait_for_a_signal")
        pid_of(site, cut_off)
        node.send(signal.SIGTERM)
        exit_code = node.wait()
    runs = by_task(site, "TaskRun", [*ids.values(), revoked, cut_off])
    return Traces(
        losses={
            named(call): Loss(
                letter=letters[task_id],
                run=runs[task_id],
                pid=pid_of(site, task_id),
            )
            for call, task_id in ids.items()
        },
        struck=letters[struck],
        strikes=sorted(
            rows(site, "TaskRun", task_id=struck), key=lambda run: run["deliveries"]
        ),
        struck_pids=[event["pid"] for event in site.events("run", id=struck)],
        revoked=runs[revoked],
        revoked_state=revoked_state,
        cut_off=runs[cut_off],
        exit_code=exit_code,
        left_alive=alive(event["pid"] for event in site.events("run")),
        queued=site.queue_lengths("celery"),
    )


def revoke(site: Site) -> tuple[str, str]:
    """End a task by remote control; its id and the state that its result then has."""
    task_id = send(site, "wait_for_a_signal")
    pid = pid_of(site, task_id)
    with site.client() as app:
        app.control.revoke(task_id, terminate=True, signal="SIGTERM")
        eventually(lambda: not alive([pid]), 20)
        state = eventually(lambda: ended(app.backend.get_state(task_id)), 20)
    finish(site, [send(site, "nothing")])
    return task_id, state


def ended(state: str) -> str | None:
    """A state that is not the one of a task which goes on."""
    return state if state not in ("PENDING", "STARTED") else None


def named(call: tuple[str, Sequence[Any]]) -> str:
    """As in `leave(7)`."""
    name, arguments = call
    return f"{name}({', '.join(map(str, arguments))})"


EACH = [pytest.param(named(call), id=named(call)) for call in CAUSES]
BY_NAME = {named(call): cause for call, cause in CAUSES.items()}


@pytest.mark.parametrize("call", EACH)
def test_the_letter_says_why_the_process_ended(traces: Traces, call: str) -> None:
    """In words, and the run says the same."""
    letter, run = traces.losses[call].letter, traces.losses[call].run

    assert letter["reason"] == "poison"
    assert re.fullmatch(BY_NAME[call], letter["cause"])
    assert letter["exception_type"] == "billiard.exceptions.WorkerLostError"
    assert letter["cause"] in letter["exception_message"]
    assert run["ending"] == "child_lost"
    assert run["cause"] == letter["cause"]


@pytest.mark.parametrize("call", EACH)
def test_it_says_what_the_process_had_used(traces: Traces, call: str) -> None:
    """Memory, CPU and age, as far as the parent has seen it."""
    letter, run = traces.losses[call].letter, traces.losses[call].run

    assert letter["pid"] == traces.losses[call].pid
    assert letter["rss_bytes"] > 10 * MIB
    assert letter["cpu_seconds"] >= 0
    assert 0 < letter["child_age_seconds"] < 120
    same = ("pid", "rss_bytes", "cpu_seconds", "child_age_seconds", "stack")
    assert {key: run[key] for key in same} == {key: letter[key] for key in same}


def test_cpu_seconds_are_those_of_the_whole_process(traces: Traces) -> None:
    """As the kernel has counted them when it was reaped."""
    assert traces.losses["segfault()"].letter["cpu_seconds"] >= 0.5


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_leaves_the_stack_of_where_it_happened(
    traces: Traces, name: str
) -> None:
    """faulthandler writes it in the last moment."""
    letter = traces.losses[f"{name}()"].letter

    function, source = marked(letter["stack"])

    assert function == name
    assert source.endswith("# here")
    assert f"Fatal Python error: {CRASHES[name]}" in letter["stack"]
    assert f"{name} (project/hangs.py)" in letter["fingerprint"]


def test_each_loss_is_on_record(traces: Traces) -> None:
    """Also those after which the task has run again, each with its own process."""
    runs = traces.strikes

    assert [run["verdict"] for run in runs] == ["requeue", "requeue", "bury"]
    assert [run["deliveries"] for run in runs] == [1, 2, 3]
    assert {run["cause"] for run in runs} == {"killed by SIGKILL from outside"}
    assert [run["pid"] for run in runs] == traces.struck_pids
    assert traces.struck["pid"] == runs[-1]["pid"]


def test_what_somebody_ended_on_purpose_says_so(traces: Traces) -> None:
    """`revoke(terminate=True)`: no letter; the run tells the signal, and that we did."""
    assert traces.revoked_state == "REVOKED"
    assert traces.revoked["ending"] == "revoked"
    assert traces.revoked["verdict"] == "ack"
    assert traces.revoked["cause"] == "ended by SIGTERM on request"


def test_a_shutdown_is_the_cause_of_what_it_cuts_off(traces: Traces) -> None:
    """The task goes back to the queue, and that is on record."""
    assert traces.exit_code == 0
    assert traces.cut_off["verdict"] == "requeue"
    assert traces.cut_off["cause"] == "worker shut down"
    assert traces.queued == {"celery": 1}
    assert traces.left_alive == []


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
