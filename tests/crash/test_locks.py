"""Locks of tasks, with their holders killed, frozen and stuck, and their server restarted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.crash.chaos import NEVER_POISON, SOAK, Record, sized
from tests.crash.streams import ClockedValkey, Fleet, fleet, signal_all, tree_of
from tests.node import Site
from tests.processes import alive
from tests.project.locked import GUARD
from tests.services import started
from tests.sites import STREAMS, MakeSite
from tests.waiting import eventually
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Held

TASKS = "tests.project.locked."
JOBS = ("-I", "tests.project.locked")

SEED = random.randrange(10**6)
MARGIN = 1 if SOAK else 3
"""Seconds; in `make test` the machine does other things as well."""

LEASE, AHEAD = 5, 10


def send(site: Site, name: str, *args: Any, **options: Any) -> str:
    """Send a task; its id."""
    with site.client() as app:
        return str(app.send_task(TASKS + name, args, **options).id)


def holder(locks: Backend, name: str) -> Held | None:
    """Who has a lock."""
    return next((held for held in locks.all_held() if held.name == name), None)


def freed(locks: Backend, held: Held, since: float, seconds: float) -> float:
    """After how long that holder had the lock no more."""

    def is_free() -> bool:
        now = holder(locks, held.name)
        return now is None or now.owner.token != held.owner.token

    eventually(is_free, seconds + 10)
    return time.monotonic() - since


# Who dies.


def test_a_lock_is_free_when_its_process_dies(
    streams_site: MakeSite, record_property: Record
) -> None:
    """At once for a child that is killed, whoever kills it; after a lease for a whole node.

    A child that holds the interpreter for longer than the lease keeps its lock.
    """
    site, times = streams_site(), sized(2, 50)
    locks = backends.at(site.broker)
    with site.node("-c", "4", *JOBS) as node:
        stuck = send(site, "hold_the_interpreter", sized(5, 60))
        limited = send(site, "beyond_hard_limit")
        run = eventually(lambda: site.events("run", id=limited), 10)[0]
        held = eventually(lambda: holder(locks, TASKS + "beyond_hard_limit"))
        freed(locks, held, 0, 5)
        after_limit = time.time() - run["at"] - 2
        waits = [kill_holder(site, locks, number) for number in range(times)]

        left = eventually(lambda: site.events("run", id=stuck), 10)
        while not site.events("end", id=stuck):
            held = holder(locks, TASKS + "hold_the_interpreter")
            keeps = held is not None and held.owner.task_id == stuck
            assert keeps or site.events("end", id=stuck)
            time.sleep(0.05)
        assert len(left) == 1
        eventually(lambda: holder(locks, TASKS + "hold_the_interpreter") is None, 5)

        last = send(site, "lose_it", 99, "/nowhere")
        eventually(lambda: site.events("run", id=last), 10)
        held = holder(locks, "report:99")
        assert held is not None
        died = time.monotonic()
        node.kill_tree()
        after_node = freed(locks, held, died, LEASE)

    record_property("children killed", times)
    record_property("free after, at most (s)", round(max(waits), 3))
    record_property("free after a hard limit (s)", round(after_limit, 2))
    record_property("free after its node died, lease 5 s (s)", round(after_node, 2))
    assert max(waits) < MARGIN
    assert after_limit < MARGIN
    assert after_node < LEASE + MARGIN


def kill_holder(site: Site, locks: Backend, number: int) -> float:
    """SIGKILL a child that holds a lock; after how long it was free."""
    marker = site.directory / f"go-{number}"
    task_id = send(site, "lose_it", number, str(marker))
    run = eventually(lambda: site.events("run", id=task_id), 10)[0]
    held = holder(locks, f"report:{number}")
    assert held is not None
    assert (held.owner.task_id, held.owner.pid) == (task_id, run["pid"])
    killed = time.monotonic()
    os.kill(run["pid"], signal.SIGKILL)
    seconds = freed(locks, held, killed, 1)
    marker.touch()
    eventually(lambda: len(site.events("run", id=task_id)) == 2, 20)
    return seconds


# Who waits in a circle.


def test_deadlocks_are_found_and_every_task_succeeds(
    streams_site: MakeSite, record_property: Record
) -> None:
    """Circles of 2, 3 and 10 tasks across nodes: one gives way at once, and comes again."""
    site = streams_site()
    sizes = (2, 3, 10)
    with fleet(site, "a@test", "b@test", options=("-c", "8"), jobs=JOBS):
        for turn in range(sized(1, 10)):
            ids = [
                send(site, "ring", f"{turn}-{size}", place, size)
                for size in sizes
                for place in range(size)
            ]
            for size in sizes:
                found = eventually(
                    lambda r=f"{turn}-{size}": seconds_to_find(site, r), 30
                )
                record_property(f"circle of {size}: broken after (s)", round(found, 2))
                assert found < MARGIN
            with site.client() as app:
                state = app.backend.get_state
                eventually(
                    lambda ids=ids, state=state: {state(i) for i in ids} == {"SUCCESS"},
                    60,
                )


def seconds_to_find(site: Site, run: str) -> float | None:
    """From when the last of a circle wanted its second lock to when one had both."""
    both = site.events(f"{run} both")
    if not both:
        return None
    closed = max(
        line["mono"] for line in site.events(f"{run} wants") if line["attempt"] == 0
    )
    return max(0.0, float(both[0]["mono"]) - closed)


# Everything at random.


@pytest.fixture
def durable_valkey() -> Iterator[ClockedValkey]:
    """A server for one test, to kill: what it has answered is on disk."""
    with started(ClockedValkey) as server:
        yield server


@pytest.fixture
def durable_site(
    durable_valkey: ClockedValkey, tmp_path: Path, migrated_database: Path
) -> Site:
    """A site on that server, by our own transport."""
    shutil.copy(migrated_database, tmp_path / "db.sqlite3")
    return Site(directory=tmp_path, broker=STREAMS + durable_valkey.url(0))


@pytest.mark.timeout(1800 if SOAK else 240)
def test_two_never_both_pass_a_guarded_write(
    durable_site: Site, durable_valkey: ClockedValkey, record_property: Record
) -> None:
    """64 tasks on 3 nodes want one lock, whoever holds it is hit: no update is lost."""
    site, count, seconds = durable_site, sized(64, 1000), sized(0, 300)
    site.settings = {"UNSTUCK": {**NEVER_POISON, "LEASE_SECONDS": 2}}
    guard = site.directory / "guard.sqlite3"
    with closing(sqlite3.connect(guard)) as database:
        database.executescript(GUARD)
    names = ("a@test", "b@test", "c@test")
    with fleet(site, *names, options=("-c", "2"), jobs=JOBS) as nodes:
        ids = {send(site, "guarded", str(guard), 0.1) for _ in range(count)}
        blows = Blows(site, nodes, durable_valkey, guard)
        blows.run(seconds)
        eventually(lambda: not ids - ended(site), sized(120, 600))
        eventually(lambda: backends.at(site.broker).all_held() == [], 10)

    with closing(sqlite3.connect(guard)) as database:
        (value,) = database.execute("SELECT value FROM guard").fetchone()
        (passed,) = database.execute("SELECT count(*) FROM passed").fetchone()
    begun, refused = site.events("begin"), site.events("over", passes=False)
    record_property("tasks", count)
    for name, times in blows.done.items():
        record_property(name, times)
    record_property("runs", len(begun))
    record_property("held by two at once, for want of a lease", overlaps(site))
    record_property("writes that the fence refused", len(refused))
    record_property("writes that passed", passed)
    record_property("updates lost", passed - value)
    assert value == passed
    assert len({run["fence"] for run in begun}) == len(begun)


class Blows:
    """Hits whoever holds the lock, in every way, in any order."""

    def __init__(
        self, site: Site, nodes: Fleet, server: ClockedValkey, guard: Path
    ) -> None:
        self.done: Counter[str] = Counter()
        self._site, self._guard = site, guard
        self._nodes, self._server, self._locks = nodes, server, backends.at(site.broker)

    def run(self, seconds: float) -> None:
        """Go on for so long, and until each happened."""
        until = time.monotonic() + seconds
        ways = [
            self.freeze_node,
            self.kill_child,
            self.kill_node,
            self.restart_server,
            self.set_clock,
        ]
        while True:
            for way in random.sample(ways, len(ways)):
                way()
                self.done[way.__name__.replace("_", " ")] += 1
            if time.monotonic() >= until:
                return

    def _stopped(self) -> Held:
        """Whoever holds the lock; its process is stopped, and has it."""
        while True:
            held = self._holder()
            signal_all([held.owner.pid], signal.SIGSTOP)
            time.sleep(0.05)  # What it had said is heard now.
            begun = self._site.events("begin", fence=held.fence)
            if begun and alive([held.owner.pid]) and self._is_held_by(held):
                return held
            signal_all([held.owner.pid], signal.SIGCONT)

    def _holder(self) -> Held:
        return eventually(lambda: holder(self._locks, "guarded"), 30)

    def _is_held_by(self, held: Held) -> bool:
        now = holder(self._locks, "guarded")
        return now is not None and now.owner.token == held.owner.token

    def freeze_node(self) -> None:
        """SIGSTOP of its node, until others have the lock; its write comes too late."""
        held = self._stopped()
        pids = tree_of(self._nodes.nodes[held.owner.node])
        signal_all(pids, signal.SIGSTOP)
        try:
            had_written = self._asked(
                "SELECT count(*) FROM passed WHERE fence = ?", held
            )
            eventually(lambda: self._holder().fence > held.fence, 30)
            if had_written is not None:
                others = "SELECT fence > ? FROM guard"
                eventually(lambda: self._asked(others, held), 30)
        finally:
            signal_all(pids, signal.SIGCONT)
        over = eventually(lambda: self._site.events("over", fence=held.fence), 30)
        assert had_written in (None, over[0]["passes"])

    def _asked(self, question: str, held: Held) -> bool | None:
        """What the guard knows of that holder; ``None`` while somebody writes there.

        Who is stopped while it writes keeps all others from writing.
        """
        try:
            with closing(sqlite3.connect(self._guard, timeout=0)) as database:
                database.execute("BEGIN IMMEDIATE")
                return bool(database.execute(question, (held.fence,)).fetchone()[0])
        except sqlite3.OperationalError:
            return None

    def kill_child(self) -> None:
        """SIGKILL of its process."""
        signal_all([self._stopped().owner.pid], signal.SIGKILL)

    def kill_node(self) -> None:
        """SIGKILL of all processes of its node, which is then started again."""
        name = self._stopped().owner.node
        self._nodes.nodes[name].kill_tree()
        self._nodes.start(name)

    def restart_server(self) -> None:
        """SIGKILL of the server, which is started again with what it wrote down."""
        self._server.kill()
        self._server.start()

    def set_clock(self) -> None:
        """The server's clock goes ahead, so that all leases are over, and back again."""
        held = self._holder()
        self._server.set_clock(AHEAD)
        eventually(lambda: self._holder().fence > held.fence, 30)
        self._server.set_clock(0)


def ended(site: Site) -> set[str]:
    """The tasks whose write has passed, or was refused."""
    return {line["id"] for line in site.events("over")}


def overlaps(site: Site) -> int:
    """How often one began before another had written, which had begun before it."""
    over = {line["fence"]: line["mono"] for line in site.events("over")}
    runs = sorted(
        (line["mono"], over[line["fence"]])
        for line in site.events("begin")
        if line["fence"] in over
    )
    return sum(two[0] < one[1] for one, two in pairwise(runs))
