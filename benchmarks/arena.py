"""What the benchmarks share: one broker, workers of both sides, rounds, the report.

A figure is a ratio of two workers that take turns within one run: ``celery`` is
``celery.Celery`` with its prefork pool, ``unstuck`` is ``unstuck.Celery`` with its own.
Broker, settings, tasks and messages are the same; who publishes is stock Celery.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import celery
import redis

from unstuck.dev import tether
from unstuck.dev.ports import free_port
from unstuck.dev.valkey import ValkeyServer

SIDES = ("celery", "unstuck")

DATABASES, STORED = 15, 15
"""Each worker has a database of the broker to itself; messages are kept in another."""

QUEUE = "celery"
WARM = 40
"""Tasks that a worker has run before anything is measured."""

PATIENCE_SECONDS = 60
"""How long nothing may happen before a round is given up."""

LOOK_SECONDS = 0.05
SETTLE_SECONDS = 0.3
"""From the start of the last task until all of it is settled."""

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20

NAME_WIDTH, WIDTH = 38, 9

MARK, HANG, QUERY = "arena.mark", "arena.hang", "arena.query"

APP = """
import os, time
from {side} import Celery

app = Celery("arena", broker=os.environ["ARENA_BROKER"])
app.conf.update({settings!r})
marks = os.open(os.environ["ARENA_MARKS"], os.O_WRONLY | os.O_APPEND)

def note(word):
    os.write(marks, f"{{word}} {{time.monotonic()}}\\n".encode())

@app.task(name="arena.mark")
def mark(word):
    note(word)

@app.task(name="arena.hang", time_limit=1)
def hang(word):
    note(word)
    time.sleep(600)

@app.task(name="arena.query")
def query(word):
    from django.contrib.auth.models import User
    User.objects.filter(groups__name=word).count()
    note(word)
"""

SETTINGS = """
SECRET_KEY = "arena"
USE_TZ = True
ROOT_URLCONF = "urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.sites",
    "django.contrib.flatpages",
    "django.contrib.redirects",
    "django.contrib.staticfiles",
    *{apps!r},
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {{"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}},
}}]
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.sqlite3", "NAME": {database!r},
}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""

IN_DJANGO = """
import django
django.setup()
import urls
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings that hold for both sides."""

    concurrency: int = 4
    prefetch: int = 4
    """``worker_prefetch_multiplier``; 4 is what Celery has when nothing is said."""

    tasks_per_child: int | None = None
    soft_limit: float | None = 270
    django: bool = False
    """Within a project that has the contributed apps, with its admin loaded."""

    def settings(self) -> dict[str, object]:
        """As Celery names them."""
        return {
            "task_acks_late": True,
            "task_reject_on_worker_lost": True,
            "task_time_limit": 300,
            "task_soft_time_limit": self.soft_limit,
            "task_ignore_result": True,
            "worker_prefetch_multiplier": self.prefetch,
            "worker_max_tasks_per_child": self.tasks_per_child,
        }

    def __str__(self) -> str:
        soft = f"{self.soft_limit} s" if self.soft_limit else "none"
        return (
            f"acks_late, reject_on_worker_lost, hard limit 300 s, soft limit {soft}, "
            f"prefetch x{self.prefetch}, "
            f"{self.tasks_per_child or 'any number of'} tasks a child, no results"
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """A task has said that it began: its word, and when."""

    word: str
    at: float


class Arena:
    """A broker, and workers side by side: one works while the others wait."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._valkey = ValkeyServer(directory, free_port(), append_only=False)
        self._numbers = iter(range(10**9))

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Arena]:
        """An arena that leaves nothing behind."""
        with tempfile.TemporaryDirectory(prefix="arena-") as name:
            arena = cls(Path(name))
            arena._valkey.start()
            try:
                yield arena
            finally:
                arena._valkey.stop()

    @contextmanager
    def worker(self, side: str, terms: Terms) -> Iterator[Worker]:
        """A worker of one side that is up and warm."""
        number = next(self._numbers)
        place = self._directory / f"{number}-{side}"
        place.mkdir()
        database = number % DATABASES
        self._client(database).flushdb()
        worker = Worker(side, terms, place, self._valkey.url(database), database)
        try:
            for number in range(WARM):
                self.send(worker, MARK, str(number))
            worker.wait_for(WARM)
            yield worker
        finally:
            worker.end()

    @contextmanager
    def workers(self, terms: Terms) -> Iterator[dict[str, Worker]]:
        """One of each side."""
        with ExitStack() as stack:
            yield {
                side: stack.enter_context(self.worker(side, terms)) for side in SIDES
            }

    def send(self, worker: Worker, task: str, word: str) -> None:
        """Publish one task."""
        self._publish(worker.database, task, word)

    def store(self, count: int) -> None:
        """Publish so many tasks to where they wait for ``release``."""
        self._client(STORED).flushdb()
        for number in range(count):
            self._publish(STORED, MARK, str(number))

    def release(self, worker: Worker) -> None:
        """Put all that was stored into a worker's queue at once; it stays stored."""
        self._client(STORED).copy(QUEUE, QUEUE, destination_db=worker.database)

    def _publish(self, database: int, task: str, word: str) -> None:
        publisher = self._publisher(database)
        publisher.send_task(task, (word,), ignore_result=True)

    @cache  # noqa: B019 - an arena lives as long as its script
    def _client(self, database: int) -> redis.Redis:
        return redis.Redis.from_url(self._valkey.url(database))

    @cache  # noqa: B019
    def _publisher(self, database: int) -> celery.Celery:
        return celery.Celery("publisher", broker=self._valkey.url(database))

    def versions(self) -> str:
        """Of everything that takes part."""
        server = self._client(STORED).info("server")
        name = "valkey" if "valkey_version" in server else "redis"
        return f"{packages()}, {name}-server {server[f'{name}_version']}"


class Worker:
    """One worker as a tree of processes, and what its tasks have said."""

    def __init__(
        self, side: str, terms: Terms, place: Path, broker: str, database: int
    ) -> None:
        self.side = side
        self.database = database
        self._place = place
        self._marks = place / "marks"
        self._marks.touch()
        self._log = place / "log"
        self._environment = {
            **os.environ,
            "ARENA_BROKER": broker,
            "ARENA_MARKS": str(self._marks),
            "PYTHONPATH": os.pathsep.join(
                [str(place), os.environ.get("PYTHONPATH", "")]
            ),
            "PYTHONWARNINGS": "ignore",
        }
        self._environment.pop("DJANGO_SETTINGS_MODULE", None)
        source = APP.format(side=side, settings=terms.settings())
        if terms.django:
            self._make_project()
            source += IN_DJANGO
        (place / "arena_app.py").write_text(source)
        self._tether = self._start(terms)

    def _make_project(self) -> None:
        apps = ["unstuck"] if self.side == "unstuck" else []
        database = str(self._place / "db.sqlite3")
        settings = SETTINGS.format(apps=apps, database=database)
        (self._place / "arena_settings.py").write_text(settings)
        (self._place / "urls.py").write_text(URLS)
        self._environment["DJANGO_SETTINGS_MODULE"] = "arena_settings"
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
            env=self._environment,
            cwd=self._place,
            check=True,
        )

    def _start(self, terms: Terms) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return tether.spawn(
                [
                    *(sys.executable, "-m", "celery", "-A", "arena_app"),
                    *("worker", "-c", str(terms.concurrency)),
                    *("--without-mingle", "--without-gossip"),
                ],
                env=self._environment,
                cwd=self._place,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def end(self) -> None:
        """End all of it at once, and wait until it is gone."""
        if self._tether.poll() is None:
            self._tether.send_signal(tether.END_NOW)
        self._tether.wait()

    # Marks.

    def forget(self) -> None:
        """Begin anew; nothing may run."""
        time.sleep(SETTLE_SECONDS)
        os.truncate(self._marks, 0)

    def marks(self) -> list[Mark]:
        """What tasks have said since."""
        lines = self._marks.read_text().splitlines(keepends=True)
        whole = (line.split() for line in lines if line.endswith("\n"))
        return [Mark(word, float(at)) for word, at in whole]

    def wait_for(self, count: int) -> None:
        """Wait until so many tasks have begun, each counted once."""
        seen, last_news = 0, time.monotonic()
        while seen < count:
            time.sleep(LOOK_SECONDS)
            now_seen = len({mark.word for mark in self.marks()})
            if now_seen > seen:
                seen, last_news = now_seen, time.monotonic()
            silent = time.monotonic() - last_news
            if silent > PATIENCE_SECONDS or self._has_ended:
                raise SystemExit(
                    f"{self}: {seen} of {count} tasks.\n{self._last_words}"
                )

    @property
    def _has_ended(self) -> bool:
        return self._tether.poll() is not None

    @property
    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def __str__(self) -> str:
        return f"the worker of {self.side}"

    # Processes.

    def processes(self) -> dict[str, list[int]]:
        """The pids of the tree by what they are for."""
        alive = tether.descendants(self._tether.pid)
        root = min(alive, key=_started)
        others = sorted((pid for pid in alive if pid != root), key=_started)
        if self.side == "celery":
            return {"main": [root], "children": others}
        # Each child leads a group of processes; main is forked before the recorder
        # and the probes.
        children = [pid for pid in others if os.getpgid(pid) == pid]
        kept = [pid for pid in others if pid not in children]
        return {
            "supervisor": [root],
            "main": kept[:1],
            "children": children,
            "recorder": kept[1:],
        }

    def cpu_seconds(self) -> Cpu:
        """What main, and the tree without it, have used since they started."""
        roles = self.processes()
        everything = sum(_cpu_seconds(pid) for pids in roles.values() for pid in pids)
        main = sum(_cpu_seconds(pid, reaped=False) for pid in roles["main"])
        return Cpu(main, everything - main)


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds on a processor."""

    main: float
    rest: float
    """The children, those that have ended too, and whoever forks them."""

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(self.main - earlier.main, self.rest - earlier.rest)


def pss_mib(pids: Iterable[int]) -> float:
    """Memory of these processes; what several share counts once, in parts."""
    return sum(_pss_bytes(pid) for pid in pids) / MIB


def _pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def tree_cpu_seconds(root: int) -> float:
    """What all below ``root`` have used since they started, and those they waited for."""
    total = 0.0
    for pid in tether.descendants(root):
        with suppress(OSError):
            total += _cpu_seconds(pid)
    return total


def _started(pid: int) -> tuple[int, int]:
    return int(_stat(pid)[19]), pid


def _cpu_seconds(pid: int, *, reaped: bool = True) -> float:
    ticks = _stat(pid)[11 : 15 if reaped else 13]
    return sum(map(int, ticks)) / TICKS


def _stat(pid: int) -> Sequence[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


# Rounds and the report.


def options(doc: str | None, **defaults: int) -> argparse.Namespace:
    """The options of a script, each a number with a default."""
    return parser_of(doc, **defaults).parse_args()


def parser_of(doc: str | None, **defaults: int) -> argparse.ArgumentParser:
    """The same, for a script that has others too."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"default {default}"
        )
    return parser


def turns(rounds: int, *contestants: Any) -> Iterator[Any]:
    """Each of them in every round, one after the other; says so on a terminal."""
    for number in range(1, rounds + 1):
        for contestant in contestants:
            said = f"round {number} of {rounds}: {contestant!s:.50}"
            _say_on_terminal(said)
            yield contestant
    _say_on_terminal("")


def _say_on_terminal(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:79}\r", end="", file=sys.stderr, flush=True)


@dataclass(slots=True)
class Figure:
    """One quantity, measured in every round of each side."""

    name: str
    better: Callable[[Iterable[float]], float] = min
    digits: int = 0
    rounds: dict[str, list[float]] = field(
        default_factory=lambda: {side: [] for side in SIDES}
    )

    def add(self, side: str, value: float) -> None:
        """What one round has come to."""
        self.rounds[side].append(value)

    def best(self, side: str) -> float:
        """Of the round that was disturbed least."""
        return self.better(self.rounds[side])

    def median(self, side: str) -> float:
        """Of the round in the middle."""
        return statistics.median(self.rounds[side])

    def paired(self) -> float:
        """The middle one of the ratios of each round: what lasts longer than that
        disturbs both sides alike.
        """
        pairs = zip(self.rounds["unstuck"], self.rounds["celery"], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def row(self) -> str:
        """Its line of the table."""
        cells = []
        for value in (self.best, self.median):
            theirs, ours = value("celery"), value("unstuck")
            cells += [
                f"{theirs:{WIDTH}.{self.digits}f}",
                f"{ours:{WIDTH}.{self.digits}f}",
                f"{ours / theirs:{WIDTH}.2f}",
            ]
        return f"{self.name:{NAME_WIDTH}}{''.join(cells)}{self.paired():{WIDTH}.2f}"


def report(arena: Arena, terms: Terms, said: str, figures: Iterable[Figure]) -> None:
    """Print when, where and with what it was measured, and the table."""
    print(surroundings())
    print(arena.versions())
    print(terms)
    print(said)
    over = "".join(f"{name:>{3 * WIDTH}}" for name in ("best round", "median round"))
    print(f"\n{'':{NAME_WIDTH}}{over}{'by round':>{WIDTH}}")
    under = "".join(f"{name:>{WIDTH}}" for name in (*SIDES, "ratio") * 2)
    print(f"{'':{NAME_WIDTH}}{under}{'ratio':>{WIDTH}}")
    for figure in figures:
        print(figure.row())


def packages() -> str:
    """What this environment has of what takes part."""
    names = ("unstuck", "celery", "kombu", "billiard", "redis", "django")
    found = ", ".join(f"{name} {version(name)}" for name in names)
    return f"Python {platform.python_version()}, {found}"


def surroundings() -> str:
    """When and where this is."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} x {_processor()}, "
        f"{platform.platform()}, load {os.getloadavg()[1]:.1f}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine()).strip()
