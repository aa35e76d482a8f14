"""What tests of killing share: sending load, breaking things, and the judgement."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.node import Node, Site, children_of, descriptors
from tests.processes import alive
from tests.waiting import eventually
from unstuck.dev import tether

Record = Callable[[str, object], None]
"""What pytest's ``record_property`` is."""

MODULE = "tests.project.load"
LOAD = ("-I", MODULE)

SOAK = os.environ.get("UNSTUCK_SOAK") == "1"

QUICK_RETURN = {
    "visibility_timeout": 3,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
"""On Redis: what a dead node had is somebody else's after seconds, not an hour."""

NEVER_POISON = {"STRIKE_WINDOW_HOURS": 1 / 3600}
"""Whoever kills at random may hit one message often; strikes are not the matter here."""


def sized(short: int, full: int) -> int:
    """How large a test is: in `make test`, and in `make soak`."""
    return full if SOAK else short


def send(site: Site, name: str, *args: Any, **options: Any) -> str:
    """Send a task of `tests.project.load`; its id."""
    with site.client() as app:
        return str(app.send_task(f"{MODULE}.{name}", args, **options).id)


class Client:
    """Sends by one client of a site, within a ``with`` block."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._app = self._stack.enter_context(self._site.client())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


class Sender(Client):
    """Sends a mixture of tasks, again and again."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        super().__init__(site)
        self.sent: dict[str, str] = {}
        """Which task each id is."""

        self._dice = dice

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """Send one task; its id."""
        result = self._app.send_task(f"{MODULE}.{name}", args, **options)
        self.sent[str(result.id)] = name
        return str(result.id)

    def send_mixture(self, count: int) -> None:
        """Send so many of all kinds."""
        for _ in range(count):
            self._send_any()

    def _send_any(self) -> None:
        dice = self._dice
        match dice.randrange(20):
            case 0 | 1:
                self.send("work", dice.random() / 3)
            case 2 | 3:
                self.send("work", 0.0, "x" * dice.randrange(20_000, 200_000))
            case 4:
                self.send("with_family", dice.random() / 5)
            case 5 | 6:
                marker = self._site.directory / f"died-{len(self.sent)}"
                self.send("die_while_answering", dice.random() / 100, str(marker))
            case 7:
                self.send("fail_loudly", dice.randrange(50_000, 500_000))
            case _:
                self.send("work", dice.choice([0.0, 0.0, 0.01, 0.05]))


@dataclass
class Deaths:
    """Which processes were killed, and when, on the clock that all processes share."""

    at: dict[int, float] = field(default_factory=dict)

    def kill(self, pid: int) -> None:
        """SIGKILL a process, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            # Before it: what ran has not ended earlier than this.
            self.at.setdefault(pid, time.monotonic())
            os.kill(pid, signal.SIGKILL)


@dataclass
class Run:
    """One run of one id, as the ledger has it."""

    task_id: str
    pid: int
    start: float
    end: float | None = None
    last_sign: float = 0.0
    """When it last wrote anything."""


def runs_in(site: Site) -> list[Run]:
    """All runs of this site, in the order of their starts."""
    if not site.ledger_path.exists():
        return []
    runs: list[Run] = []
    open_runs: dict[tuple[int, str], Run] = {}
    for line in map(json.loads, site.ledger_path.read_text().splitlines()):
        if "mono" not in line or "id" not in line:
            continue
        key = (line["pid"], line["id"])
        if line["event"] == "start":
            open_runs[key] = Run(line["id"], line["pid"], line["mono"])
            runs.append(open_runs[key])
        if run := open_runs.get(key):
            run.last_sign = line["mono"]
            if line["event"] == "end":
                run.end = line["mono"]
    return runs


@dataclass
class Judgement:
    """Whether all that was sent has ended, and no two runs of an id overlap."""

    sent: int
    runs: int
    again: int
    lost: list[str]
    doubled: list[str]
    """Ids that ran more often than they were hit."""

    overlapping: list[str]

    @property
    def numbers(self) -> Mapping[str, int]:
        """For the report."""
        return {
            "tasks sent": self.sent,
            "runs": self.runs,
            "runs again": self.again,
            "lost": len(self.lost),
            "run again without a loss": len(self.doubled),
            "overlapping runs": len(self.overlapping),
        }

    def check(self) -> None:
        """Fail unless all is well."""
        assert self.lost == [], f"lost: {self.lost}"
        assert self.doubled == [], f"run again without a loss: {self.doubled}"
        assert self.overlapping == [], f"run by two at once: {self.overlapping}"


def judge(
    site: Site, sent: Mapping[str, str], deaths: Mapping[int, float]
) -> Judgement:
    """Compare what was sent with what ran; ``deaths`` are those of the test itself."""
    suicides = {line["pid"]: line["mono"] for line in site.events("suicide")}
    deaths = {**deaths, **suicides}
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in runs_in(site):
        runs[run.task_id].append(run)
    return Judgement(
        sent=len(sent),
        runs=sum(map(len, runs.values())),
        again=sum(len(of_one) - 1 for of_one in runs.values()),
        lost=[i for i in sent if not any(run.end for run in runs[i])],
        doubled=[
            i
            for i, of_one in runs.items()
            if len(of_one) - 1 > sum(run.pid in deaths for run in of_one)
        ],
        overlapping=[i for i, of_one in runs.items() if _overlap(of_one, deaths)],
    )


def _overlap(runs: list[Run], deaths: Mapping[int, float]) -> bool:
    ordered = sorted(runs, key=lambda run: run.start)
    for one, other in pairwise(ordered):
        over = one.end or max(deaths.get(one.pid, 0.0), one.last_sign)
        if other.start < over:
            return True
    return False


def wait_until_all_ended(site: Site, sent: Mapping[str, str], seconds: float) -> None:
    """Wait until the ledger has an end of each id."""

    def all_ended() -> bool:
        ended = {run.task_id for run in runs_in(site) if run.end}
        missing = set(sent) - ended
        assert not missing, f"{len(missing)} of {len(sent)} have not ended"
        return True

    eventually(all_ended, seconds)


# Looking at a node.


@dataclass(frozen=True)
class Descriptors:
    """What the processes that live as long as the node hold open."""

    supervisor: Counter[str]
    main: Counter[str]

    @classmethod
    def of(cls, node: Node) -> Descriptors:
        """Those of a node."""
        return cls(_kinds(node.supervisor_pid), _kinds(node.main))

    def more_than(self, other: Descriptors) -> int:
        """How many more there are than there were."""
        return max(
            self.supervisor.total() - other.supervisor.total(),
            self.main.total() - other.main.total(),
        )


def _kinds(pid: int) -> Counter[str]:
    return Counter(name.partition("[")[0] for name in descriptors(pid))


def zombies_of(pid: int) -> list[int]:
    """The children of a process that have ended and that it has not collected."""
    found = []
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{child}/stat").read_text()
            if stat.rpartition(")")[2].split()[0] == "Z":
                found.append(child)
    return found


def orphans_of(node: Node) -> list[int]:
    """Processes that outlived whoever started them: they come to the tether."""
    assert node._tether is not None
    below = tether.descendants(node._tether.pid)
    of_node = tether.descendants(node.supervisor_pid)
    return sorted(set(below) - set(of_node) - {node.supervisor_pid})


def check_tidy(node: Node, site: Site, children: int) -> None:
    """No zombie, no orphan, no family of a dead child, and all children are back."""
    eventually(lambda: len(node.children_pids) == children, 30)
    eventually(lambda: not zombies_of(node.supervisor_pid), 10)
    members = [line["member"] for line in site.events("family")]
    eventually(lambda: not alive(members), 10)
    assert orphans_of(node) == []


class Probe:
    """How long a thread that only sleeps is kept from running: how busy the host is."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            before = time.monotonic()
            self._over.wait(0.05)
            self.worst = max(self.worst, time.monotonic() - before - 0.05)


@contextlib.contextmanager
def probing() -> Iterator[Probe]:
    """Measure how busy the host is meanwhile."""
    probe = Probe()
    probe._thread.start()
    try:
        yield probe
    finally:
        probe._over.set()
        probe._thread.join()


def longest_lag(site: Site) -> float:
    """How long main's event loop did not turn, at worst; short lags are not noted."""
    return max((line["seconds"] for line in site.events("lag")), default=0.0)
