"""The supervisor: what it keeps alive, what it is told, and what ends with it."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.chaos import (
    LOAD,
    NEVER_POISON,
    QUICK_RETURN,
    SOAK,
    Record,
    Sender,
    check_tidy,
    judge,
    send,
    sized,
    wait_until_all_ended,
    zombies_of,
)
from tests.node import Site, children_of
from tests.processes import alive, in_namespace
from tests.sites import MakeSite
from tests.waiting import eventually
from unstuck.dev import tether

EX_SOFTWARE = 70
CRASH_LOOP_SECONDS = 100

ROUND_TRIP = 20


def incidents(site: Site, **filters: Any) -> list[dict[str, Any]]:
    """The incidents that the recorder has stored."""
    return site.rows("Incident", **filters)


def work_goes_on(site: Site) -> float:
    """Send a task and wait until it has run; the seconds that took."""
    before = time.monotonic()
    task_id = send(site, "work")
    eventually(lambda: site.events("end", id=task_id), ROUND_TRIP)
    return time.monotonic() - before


# Main.


def test_a_main_that_stands_still_is_replaced(
    redis_site: MakeSite, record_property: Record
) -> None:
    """SIGSTOP of main: noticed, its stack in an incident, a new one goes on."""
    site = redis_site(
        UNSTUCK={"STALL_SECONDS": 2}, CELERY_BROKER_TRANSPORT_OPTIONS=QUICK_RETURN
    )
    with site.node(*LOAD) as node:
        main, running = node.main, send(site, "hold", str(site.directory / "go"))
        eventually(lambda: site.events("start", id=running), 20)

        os.kill(main, signal.SIGSTOP)
        stopped = time.monotonic()
        eventually(lambda: not alive([main]), 20)
        noticed = time.monotonic() - stopped
        (site.directory / "go").touch()

        work_goes_on(site)
        eventually(lambda: site.events("end", id=running), 30)
        found = eventually(lambda: incidents(site, kind="stall"), 20)
        check_tidy(node, site, 3)

    (incident,) = found
    record_property("STALL_SECONDS", 2)
    record_property("killed after (s)", round(noticed, 1))
    assert 2 <= noticed < 12
    assert (incident["process"], incident["pid"]) == ("main", main)
    assert "Stack (most recent call last)" in incident["stack"]
    assert "SIGSTOP" in incident["waiting_for"]
    assert f"The main process (pid {main}) gave no sign" in incident["what"]
    assert "2 s, stopped by a signal (SIGSTOP); it" in incident["what"]
    assert judge(site, {running: "hold"}, {}).overlapping == []


@pytest.mark.timeout(1800 if SOAK else 240)
def test_a_main_that_is_killed_is_replaced_at_once(
    amqp_site: MakeSite, record_property: Record
) -> None:
    """SIGKILL of main under load, on RabbitMQ: back at once, nothing lost or doubled."""
    rounds = sized(2, 30)
    site, waits = amqp_site(UNSTUCK=NEVER_POISON), []
    with site.node("-c", "2", *LOAD) as node:
        with Sender(site, random.Random(0)) as sender:
            for _ in range(rounds):
                sender.send_mixture(30)
                # More than seven within a minute would be a crash loop.
                time.sleep(sized(1, 10))
                killed = node.main
                children = node.children_pids
                os.kill(killed, signal.SIGKILL)
                at = time.monotonic()
                eventually(lambda: len(site.events("main")) > len(waits) + 1, 60)
                waits.append(time.monotonic() - at)
                assert node.main != killed
                assert not alive(children)
            wait_until_all_ended(site, sender.sent, 90)
        check_tidy(node, site, 3)
        assert incidents(site, kind="main_lost")

    judgement = judge(site, sender.sent, {})
    record_property("kills of main", rounds)
    record_property("consumes again after, at most (s)", round(max(waits), 2))
    for name, value in judgement.numbers.items():
        record_property(name, value)
    assert judgement.lost == []
    assert judgement.overlapping == []


def test_a_main_that_crashes_again_and_again_is_given_up(
    redis_site: MakeSite, record_property: Record
) -> None:
    """A receiver that exits: the node ends non-zero and says how often in how long."""
    site = redis_site(HAZARD="exit_when_ready")
    with site.node(*LOAD, ready=False) as node:
        began = time.monotonic()
        assert node.wait(CRASH_LOOP_SECONDS) == EX_SOFTWARE
        seconds = time.monotonic() - began

    assert re.search(
        r'gives up: name=main times=\d+ within=\d+ how="exit code 3"', node.log()
    )
    record_property("given up after (s)", round(seconds, 1))
    assert incidents(site, kind="crash_loop")


def test_a_restarted_main_does_not_purge_again(redis_site: MakeSite) -> None:
    """--purge empties the queues when the node starts, not when main does."""
    site = redis_site(CELERY_BROKER_TRANSPORT_OPTIONS=QUICK_RETURN)
    early = send(site, "work")
    with site.node("-c", "1", "--purge", *LOAD) as node:
        running = send(site, "hold", str(site.directory / "go"))
        eventually(lambda: site.events("start", id=running), 20)
        waiting = [send(site, "work") for _ in range(3)]
        os.kill(node.main, signal.SIGKILL)
        (site.directory / "go").touch()

        wait_until_all_ended(site, dict.fromkeys([running, *waiting]), 40)

    assert not site.events("start", id=early)


def test_an_answer_that_cannot_be_read_ends_its_task_alone(
    redis_site: MakeSite,
) -> None:
    """An exception that pickles but does not unpickle must not end main."""
    site = redis_site()
    with site.node(*LOAD) as node:
        main = node.main
        odd = send(site, "raise_what_cannot_travel")
        letter = site.letter(odd, 20)
        work_goes_on(site)
        assert node.main == main
        check_tidy(node, site, 3)

    assert letter["reason"] == "failed"
    assert "Odd" in letter["exception_type"] + letter["exception_message"]
    assert len(site.events("start", id=odd)) == 1


# The supervisor itself.


def test_a_supervisor_that_is_killed_takes_all_with_it(
    redis_site: MakeSite, record_property: Record
) -> None:
    """SIGKILL of the supervisor: main, recorder, beat and children are gone at once."""
    site = redis_site()
    schedule = str(site.directory / "schedule")
    with site.node("-B", "-s", schedule, *LOAD) as node:
        running = send(site, "hold", str(site.directory / "never"))
        eventually(lambda: site.events("start", id=running), 20)
        eventually(lambda: len(node.companions_pids) == 2, 20)
        eventually(lambda: len(node.children_pids) == 3, 20)
        below = tether.descendants(node.supervisor_pid)

        os.kill(node.supervisor_pid, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: not alive(below), 5)
        record_property("processes", len(below))
        record_property("all gone after (s)", round(time.monotonic() - killed, 3))


def test_a_host_without_room_for_a_process_costs_no_node(redis_site: MakeSite) -> None:
    """fork() fails for a while (EAGAIN): the others go on, and the child comes later."""
    marker = Path(redis_site().directory) / "no-fork"
    site = redis_site(HAZARD="no_fork", HAZARD_MARKER=str(marker))
    with site.node(*LOAD) as node:
        supervisor, main = node.supervisor_pid, node.main
        marker.touch()
        os.kill(node.children_pids[0], signal.SIGKILL)
        time.sleep(2)
        work_goes_on(site)
        marker.unlink()
        eventually(lambda: len(node.children_pids) == 3, 60)
        assert (node.supervisor_pid, node.main) == (supervisor, main)


# Signals.


def test_sighup_loads_everything_anew(redis_site: MakeSite) -> None:
    """The same pid, a new main; also when it comes twice; SIGTERM then still ends it."""
    site = redis_site()
    with site.node(*LOAD) as node:
        supervisor, main = node.supervisor_pid, node.main
        running = send(site, "work", 1.5)
        eventually(lambda: site.events("start", id=running), 20)

        node.send(signal.SIGHUP)
        time.sleep(0.3)
        node.send(signal.SIGHUP)
        eventually(lambda: len(site.events("main")) == 2, 30)
        assert node.supervisor_pid == supervisor
        assert node.main != main
        assert site.events("end", id=running)
        assert len(site.events("start", id=running)) == 1
        work_goes_on(site)

        long = send(site, "work", 2.0)
        eventually(lambda: site.events("start", id=long), 20)
        node.send(signal.SIGHUP)
        time.sleep(0.3)
        node.send(signal.SIGTERM)
        assert node.wait(30) == 0
    assert len(site.events("main")) == 2


def test_sigusr1_writes_the_stacks_of_main(redis_site: MakeSite) -> None:
    """Celery's cry, asked of the supervisor."""
    site = redis_site()
    with site.node(*LOAD) as node:
        node.send(signal.SIGUSR1)
        eventually(lambda: "LOCAL VARIABLES" in node.log(), 20)
        assert "MainThread" in node.log()
        work_goes_on(site)


# Its surroundings.


@pytest.fixture
def notifications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """What systemd would be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        yield receiver


class Told:
    """The messages so far."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self.messages: list[str] = []

    def since(self, start: int = 0) -> list[str]:
        """All from a number on, those that have just come included."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self._receiver.recv(4096).decode()
                self.messages += text.splitlines()
        return self.messages[start:]


def test_systemd_is_told(redis_site: MakeSite, notifications: socket.socket) -> None:
    """READY when main consumes, WATCHDOG all the while, STOPPING; again after SIGHUP."""
    site, told = redis_site(), Told(notifications)
    with site.node(*LOAD, ready=False) as node:
        eventually(lambda: "READY=1" in told.since(), 30)
        assert site.events("main"), "it was ready before main was"
        count = len(told.messages)
        eventually(lambda: told.since(count).count("WATCHDOG=1") >= 2, 20)
        assert "STOPPING=1" not in told.messages

        node.send(signal.SIGHUP)
        count = len(told.since())
        eventually(lambda: "READY=1" in told.since(count), 30)
        eventually(lambda: "WATCHDOG=1" in told.since(len(told.messages)), 20)
        assert "STOPPING=1" not in told.messages, "a reload is no end"

        node.send(signal.SIGTERM)
        assert node.wait() == 0
        assert "STOPPING=1" in told.since()


def test_as_process_1_it_collects_strangers(redis_site: MakeSite) -> None:
    """In a PID namespace: no zombies, whoever's children they are; SIGTERM ends it."""
    site, prefix = redis_site(), in_namespace()
    with site.node(*LOAD, prefix=prefix) as node:
        (worker,) = children_of(node.supervisor_pid)
        for _ in range(5):
            send(site, "leave_an_orphan")
        eventually(lambda: len(site.events("orphan")) == 5, 20)
        eventually(lambda: not zombies_of(worker), 10)
        os.kill(worker, signal.SIGTERM)
        assert node.wait() == 0


@pytest.mark.parametrize("broker", ["redis", "streams"])
def test_beat_is_kept_alive(request: pytest.FixtureRequest, broker: str) -> None:
    """-B: a process of its own, restarted when it is killed, gone at the end."""
    entry = {"task": "tests.project.load.tick", "schedule": 0.5}
    make_site: MakeSite = request.getfixturevalue(f"{broker}_site")
    site = make_site(CELERY_BEAT_SCHEDULE={"tick": entry})
    schedule = str(site.directory / "schedule")
    with site.node("-B", "-s", schedule, *LOAD) as node:
        eventually(lambda: site.events("tick"), 20)
        (beat,) = (event["pid"] for event in site.events("beat"))
        (recorder,) = set(node.companions_pids) - {beat}

        os.kill(beat, signal.SIGKILL)
        eventually(lambda: len(site.events("beat")) == 2, 20)
        new_beat = site.events("beat")[-1]["pid"]
        count = len(site.events("tick"))
        eventually(lambda: len(site.events("tick")) > count + 2, 30)
        eventually(lambda: set(node.companions_pids) == {new_beat, recorder}, 20)

        os.kill(recorder, signal.SIGKILL)
        eventually(lambda: recorder not in node.companions_pids, 10)
        eventually(lambda: len(node.companions_pids) == 2, 20)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        assert not alive([new_beat])


# Too few descriptors.


def test_main_opens_as_many_files_as_it_may(redis_site: MakeSite) -> None:
    """Up to the hard limit; what tasks start gets what it would have got."""
    site = redis_site()
    with site.node(*LOAD, prefix=("prlimit", "--nofile=200:3000")) as node:
        assert files_allowed(node.main) == (3000, 3000)
        assert {files_allowed(pid) for pid in node.children_pids} == {(200, 3000)}
        assert "too few descriptors" not in node.log()


def test_children_without_room_are_no_end_of_main(redis_site: MakeSite) -> None:
    """Those that there is room for work, and the log says what is to be done."""
    site = redis_site()
    with site.node("-c", "30", *LOAD, prefix=("prlimit", "--nofile=100:100")) as node:
        main = node.main
        work_goes_on(site)
        eventually(lambda: "main may open too few files" in node.log(), 30)
        eventually(lambda: 0 < len(node.children_pids) < 30, 10)
        time.sleep(2)
        work_goes_on(site)

        assert node.main == main
        assert "There are too few descriptors for so many children" in node.log()
        node.send(signal.SIGTERM)
        assert node.wait() == 0


def files_allowed(pid: int) -> tuple[int, int]:
    """The limits of a process, soft and hard."""
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


# Hidden hazards in a project.


def test_a_receiver_that_raises_in_a_new_child_does_no_harm(
    redis_site: MakeSite,
) -> None:
    """worker_process_init that raises: as with stock Celery, it is logged."""
    site = redis_site(HAZARD="raise_in_child")
    with site.node(*LOAD) as node:
        work_goes_on(site)
        assert "not today" in node.log()


@pytest.mark.parametrize(
    ("hazard", "said"),
    [
        ("exit_in_child", r"exited with code 5"),
        (
            "hang_in_child",
            r"A child does not go on and is killed: .* missing=start waits_for=sleep",
        ),
    ],
)
def test_children_that_do_not_start_are_tried_again(
    redis_site: MakeSite, tmp_path: Path, hazard: str, said: str
) -> None:
    """A receiver that exits or hangs: said in the log, and over when it is mended."""
    mended = tmp_path / "mended"
    site = redis_site(HAZARD=hazard, HAZARD_MARKER=str(mended))
    with site.node(*LOAD) as node:
        main = node.main
        eventually(lambda: re.search(said, node.log()), 30)
        mended.touch()
        work_goes_on(site)
        eventually(lambda: len(node.children_pids) == 3, 60)
        assert node.main == main
        eventually(lambda: not zombies_of(node.supervisor_pid), 10)


def test_a_hook_that_forks_does_no_harm(redis_site: MakeSite) -> None:
    """on_failure that forks, after a failure and after a loss: each is called once."""
    site = redis_site(UNSTUCK={"MAX_STRIKES": 1})
    with site.node(*LOAD) as node:
        main = node.main
        ids = [
            send(site, "kill_with_forking_hook"),
            send(site, "fail_with_forking_hook"),
        ]
        eventually(lambda: len(site.events("forked_hook")) >= 2, 20)
        called = [event["id"] for event in site.events("on_failure")]
        assert sorted(called) == sorted(ids)
        work_goes_on(site)
        assert node.main == main
        check_tidy(node, site, 3)


def test_a_thread_started_at_import_is_named(redis_site: MakeSite) -> None:
    """It would not exist in what is forked, and hold a lock there for ever."""
    site = redis_site(HAZARD="thread")
    with site.node(*LOAD) as node:
        assert re.search(r"Threads were started while .*early-bird", node.log())
        work_goes_on(site)
