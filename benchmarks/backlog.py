"""A backlog of tasks on one server, and how fast workers drain it.

Every task writes one byte to a file, whoever runs it: how many have run is the size of
that file, so all are counted in one and the same way, and at the same cost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest.mock import patch

import redis
from arena import tree_cpu_seconds

from unstuck.dev import tether
from unstuck.dev.errors import DevError
from unstuck.dev.ports import free_port
from unstuck.dev.valkey import ValkeyServer

LIVE = 0
"""The database that workers work on; backlogs are kept in those behind it."""

BEGIN, END = 0.10, 0.95
"""The part of a backlog that is measured: neither the start of workers nor the end."""

LOOK_SECONDS = 0.005
PATIENCE_SECONDS = 60
"""How long nothing may happen before a round is given up."""

LAST_LINES = 15
COPIES_AT_ONCE = 1000
MICROSECONDS = 1e6

MODULE = "contest"
"""What the module is called that each side's source becomes."""

MARKS = """
import os

_marks = os.open(os.environ["CONTEST_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def mark():
    os.write(_marks, b".")
"""

PUBLISH = f"""
import sys, time
import {MODULE} as contest

publish = getattr(contest, sys.argv[1])
warm, count = map(int, sys.argv[2:])
if warm:
    publish(warm)
started = time.perf_counter()
publish(count)
print(time.perf_counter() - started)
"""


class Stalled(Exception):
    """Nothing happens any more; the message has the last words of who should work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Somebody who publishes tasks and runs them, as a module and its command lines."""

    name: str
    source: str
    """A module with ``publish(count)``; a task of it calls ``mark()``."""

    commands: Sequence[Sequence[str]]
    """One for each node."""

    python: str = sys.executable
    scheme: str = ""
    """What goes before ``redis://``."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How far it has come at an instant."""

    at: float
    done: int
    worker_cpu: float
    server_cpu: float
    commands: int
    input_bytes: int
    output_bytes: int
    calls: dict[str, int] = field(default_factory=dict)
    """Commands by their name; those within scripts too."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Between two samples."""

    begin: Sample
    end: Sample

    @property
    def tasks(self) -> int:
        """How many have run."""
        return self.end.done - self.begin.done

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return self.tasks / (self.end.at - self.begin.at)

    @property
    def worker_microseconds(self) -> float:
        """What a task takes of the processor: all processes of the workers."""
        used = self.end.worker_cpu - self.begin.worker_cpu
        return used * MICROSECONDS / self.tasks

    @property
    def server_microseconds(self) -> float:
        """What a task takes of the processor: the server."""
        used = self.end.server_cpu - self.begin.server_cpu
        return used * MICROSECONDS / self.tasks

    @property
    def commands(self) -> float:
        """Commands a task; what a script does counts too."""
        return (self.end.commands - self.begin.commands) / self.tasks

    @property
    def input_bytes(self) -> float:
        """Bytes to the server, a task."""
        return (self.end.input_bytes - self.begin.input_bytes) / self.tasks

    @property
    def output_bytes(self) -> float:
        """Bytes from the server, a task."""
        return (self.end.output_bytes - self.begin.output_bytes) / self.tasks

    @property
    def calls(self) -> dict[str, float]:
        """Commands a task by their name, the most frequent first."""
        before = self.begin.calls
        calls = {
            name: (count - before.get(name, 0)) / self.tasks
            for name, count in self.end.calls.items()
        }
        used = [(name, count) for name, count in calls.items() if count > 0]
        return dict(sorted(used, key=lambda item: -item[1]))


class Ground:
    """One server, and sides that use it in turn."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._valkey = ValkeyServer(directory, free_port(), append_only=False)
        self._stored: dict[str, int] = {}
        self._numbers = iter(range(10**9))

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Ground]:
        """A ground that leaves nothing behind."""
        with tempfile.TemporaryDirectory(prefix="ground-") as name:
            ground = cls(Path(name))
            _start(ground._valkey)
            try:
                yield ground
            finally:
                ground._valkey.stop()

    @cache  # noqa: B019 - a ground lives as long as its script
    def client(self, database: int = LIVE) -> redis.Redis:
        """A connection to one database of the server."""
        return redis.Redis.from_url(self._valkey.url(database))

    @property
    def server(self) -> str:
        """What the server is."""
        info = self.client().info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name}-server {info[f'{name}_version']}"

    # Publishing.

    def publish(
        self,
        side: Side,
        count: int,
        *,
        by: str = "publish",
        warm: int = 0,
        database: int = LIVE,
    ) -> float:
        """Have a process of its own publish so many tasks; how many a second."""
        place = self._place(side)
        done = subprocess.run(
            [side.python, "-c", PUBLISH, by, str(warm), str(count)],
            env=self._environment(side, place, database),
            cwd=place,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Stalled(f"{side.name} cannot publish.\n{_last_lines(done.stderr)}")
        return count / float(done.stdout.split()[-1])

    def store(self, side: Side, count: int) -> None:
        """Publish a backlog once, to where it is kept."""
        database = self._stored.setdefault(side.name, len(self._stored) + 1)
        self.client(database).flushdb()
        self.publish(side, count, database=database)

    def release(self, side: Side) -> None:
        """Make a stored backlog the only thing that there is to work on."""
        self.clear()
        stored = self.client(self._stored[side.name])
        keys = list(stored.scan_iter(count=COPIES_AT_ONCE))
        for first in range(0, len(keys), COPIES_AT_ONCE):
            with stored.pipeline(transaction=False) as pipe:
                for key in keys[first : first + COPIES_AT_ONCE]:
                    pipe.copy(key, key, destination_db=LIVE)
                pipe.execute()

    def clear(self) -> None:
        """Let there be nothing to work on."""
        self.client().flushdb(asynchronous=True)

    # Working.

    def drain(self, side: Side, count: int) -> Pace:
        """Let new workers have a stored backlog of so many tasks."""
        self.release(side)
        with self.crew(side) as crew:
            begin = crew.wait_for(int(count * BEGIN))
            return Pace(begin, crew.wait_for(int(count * END)))

    @contextmanager
    def crew(self, side: Side) -> Iterator[Crew]:
        """The workers of a side; they are gone afterwards, and so are their tasks."""
        place = self._place(side)
        environment = self._environment(side, place, LIVE)
        crew = Crew(side, place, environment, self.client())
        try:
            yield crew
        finally:
            crew.end()
            self.clear()

    def _place(self, side: Side) -> Path:
        place = self._directory / str(next(self._numbers))
        place.mkdir()
        (place / f"{MODULE}.py").write_text(side.source)
        (place / f"{MODULE}_marks.py").write_text(MARKS)
        (place / "marks").touch()
        return place

    def _environment(self, side: Side, place: Path, database: int) -> dict[str, str]:
        environment = {
            **os.environ,
            "CONTEST_BROKER": side.scheme + self._valkey.url(database),
            "CONTEST_MARKS": str(place / "marks"),
            "PYTHONPATH": str(place),
            "PYTHONWARNINGS": "ignore",
        }
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        return environment


class Crew:
    """The workers of one side, each a tree of processes, and what they have done."""

    def __init__(
        self,
        side: Side,
        place: Path,
        environment: dict[str, str],
        server: redis.Redis,
    ) -> None:
        self._name = side.name
        self._server = server
        self._marks = place / "marks"
        self._log = place / "log"
        self._tethers: list[subprocess.Popen[bytes]] = []
        with self._log.open("wb") as log:
            for command in side.commands:
                self._tethers.append(
                    tether.spawn(
                        command,
                        env=environment,
                        cwd=place,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )

    def end(self) -> None:
        """End all of them at once, and wait until they are gone."""
        for one in self._tethers:
            if one.poll() is None:
                one.send_signal(tether.END_NOW)
        for one in self._tethers:
            one.wait()

    def done(self) -> int:
        """How many tasks have run."""
        return self._marks.stat().st_size

    def wait_for(
        self,
        count: float,
        *,
        meanwhile: Callable[[int], object] = lambda done: None,
        seconds: float = float("inf"),
    ) -> Sample:
        """Wait until so many tasks have run, or so long, and say how far it has come.

        ``meanwhile`` is called at each look with how many have run.
        """
        seen, last_news = -1, time.monotonic()
        give_up_at = last_news + seconds
        while (done := self.done()) < count and time.monotonic() < give_up_at:
            if done > seen:
                seen, last_news = done, time.monotonic()
            if self._is_over(last_news):
                raise Stalled(f"{self._name}: {done} of {count} tasks.\n{self._words}")
            meanwhile(done)
            time.sleep(LOOK_SECONDS)
        return self.sample()

    def sample(self) -> Sample:
        """How far it has come."""
        at, done = time.monotonic(), self.done()
        info = self._server.info("stats")
        cpu = self._server.info("cpu")
        calls = self._server.info("commandstats")
        return Sample(
            at=at,
            done=done,
            worker_cpu=sum(tree_cpu_seconds(one.pid) for one in self._tethers),
            server_cpu=cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            commands=info["total_commands_processed"],
            input_bytes=info["total_net_input_bytes"],
            output_bytes=info["total_net_output_bytes"],
            calls={
                name.removeprefix("cmdstat_"): one["calls"]
                for name, one in calls.items()
            },
        )

    def _is_over(self, last_news: float) -> bool:
        silent = time.monotonic() - last_news > PATIENCE_SECONDS
        return silent or any(one.poll() is not None for one in self._tethers)

    @property
    def _words(self) -> str:
        return _last_lines(self._log.read_text(errors="replace"))


def _start(valkey: ValkeyServer) -> None:
    """The Valkey of the wheel if there is one, whatever else is on PATH."""
    with patch.dict(os.environ, PATH=""), suppress(DevError):
        valkey.start()
        return
    valkey.start()


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-LAST_LINES:])
