"""Who takes part in the contest: ours, stock Celery, and four other queues.

The others are installed into ``.bench-venv`` as ``requirements/bench.txt`` has them. Each
is set as its documentation has it for tasks that must not be lost, has two processes that
run tasks, a limit of 300 seconds, and says nothing that is not a warning.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arena import Terms
from backlog import MODULE, Side

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".bench-venv"
PINS = ROOT / "requirements" / "bench.txt"

PROCESSES = 2
OURS, STOCK = "unstuck", "celery"

CELERY = """
import os
from {package} import Celery
from contest_marks import mark

app = Celery("contest", broker=os.environ["CONTEST_BROKER"])
app.conf.update({settings!r})

@app.task(name="noop")
def noop():
    mark()

def publish(count):
    for _ in range(count):
        noop.delay()

def publish_many(count):
    noop.delay_many([()] * count)
"""

DRAMATIQ = """
import os
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from contest_marks import mark

broker = RedisBroker(url=os.environ["CONTEST_BROKER"])
dramatiq.set_broker(broker)

@dramatiq.actor(time_limit=300_000)
def noop():
    mark()

def publish(count):
    for _ in range(count):
        noop.send()
"""

HUEY = """
import os
from huey import RedisHuey
from contest_marks import mark

huey = RedisHuey("contest", url=os.environ["CONTEST_BROKER"], results=False)

@huey.task(timeout=300)
def noop():
    mark()

def publish(count):
    for _ in range(count):
        noop()
"""

RQ = """
import os
from contest_marks import mark

REDIS_URL = os.environ["CONTEST_BROKER"]

def noop():
    mark()

def publish(count):
    from redis import Redis
    from rq import Queue, Retry

    queue = Queue(connection=Redis.from_url(REDIS_URL))
    for _ in range(count):
        queue.enqueue(
            "contest.noop", job_timeout=300, result_ttl=0, retry=Retry(max=3)
        )
"""

TASKIQ = """
import asyncio, os
from taskiq_redis import RedisStreamBroker
from contest_marks import mark

broker = RedisStreamBroker(url=os.environ["CONTEST_BROKER"], consumer_id="0")

@broker.task(timeout=300)
{define} noop():
    mark()

def publish(count):
    asyncio.run(_publish(count))

async def _publish(count):
    await broker.startup()
    for _ in range(count):
        await noop.kiq()
    await broker.shutdown()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A side, how it is set, and how large a backlog it works on for a few seconds."""

    side: Side
    settings: str
    acknowledges: bool = True
    """Whether a task that was lost with its process can run again by itself."""

    share: float
    """Of ``--tasks``: who is slower gets less, so that all work about as long."""

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return self.side.name

    @property
    def family(self) -> str:
        """Whose it is."""
        return self.name.replace(",", " ").split()[0]

    def __str__(self) -> str:
        return self.name


def celery_side(
    package: str, terms: Terms, *, nodes: int = 1, name: str | None = None
) -> Side:
    """Ours or stock: the same task, the same settings, each its own transport."""
    worker = (
        *(sys.executable, "-m", "celery", "-A", MODULE, "worker"),
        *("-c", str(terms.concurrency), "-l", "warning"),
        *("--without-mingle", "--without-gossip"),
    )
    return Side(
        name=name or package,
        source=CELERY.format(package=package, settings=terms.settings()),
        commands=[(*worker, "-n", f"node{number}@%h") for number in range(nodes)],
        scheme="unstuck+" if package == OURS else "",
    )


def celery_contestants(terms: Terms) -> list[Contestant]:
    """Ours and stock."""
    recycled = terms.tasks_per_child is not None
    suffix = f", {terms.tasks_per_child} a child" if recycled else ""
    # Long enough for a dozen children of each place: stock now and then waits for one.
    shares = {OURS: 0.5, STOCK: 0.25} if recycled else {OURS: 1.0, STOCK: 0.25}
    return [
        Contestant(
            side=celery_side(package, terms, name=f"{package}{suffix}"),
            settings=f"{transport}, -c {terms.concurrency}, {terms}",
            share=shares[package],
        )
        for package, transport in ((OURS, "unstuck+redis://"), (STOCK, "redis://"))
    ]


# The others.


@dataclass(frozen=True, slots=True)
class Peers:
    """Those that could be installed, and why the rest could not."""

    contestants: Sequence[Contestant]
    missing: dict[str, str]
    versions: dict[str, str]


def peers() -> Peers:
    """Install the other queues, and say which of them there are."""
    missing = _install()
    there = [peer for peer in _peers() if peer.family not in missing]
    return Peers(there, missing, _versions())


PEERS = {
    "dramatiq": ("dramatiq",),
    "huey": ("huey",),
    "rq": ("rq",),
    "taskiq": ("taskiq", "taskiq-redis"),
}
"""The packages of each."""

SHARED = ("redis", "hiredis")
"""What all of them use, in the versions that ours and stock have."""


def _peers() -> list[Contestant]:
    return [_dramatiq(8), _dramatiq(1), _huey(), _rq(), *_taskiqs()]


def _dramatiq(threads: int) -> Contestant:
    return _peer(
        "dramatiq" + (f" -t {threads}" if threads != 8 else ""),
        DRAMATIQ,
        ("dramatiq", MODULE, "-p", str(PROCESSES), "-t", str(threads)),
        f"RedisBroker, {PROCESSES} processes of {threads} threads, its middleware "
        "(retries, age and time limit 300 s); acknowledges after the run: at least once",
        0.75 if threads > 1 else 0.1,
    )


def _huey() -> Contestant:
    worker = ("huey_consumer", f"{MODULE}.huey", "-k", "process", "-w", str(PROCESSES))
    return _peer(
        "huey",
        HUEY,
        (*worker, "-q"),
        f"RedisHuey, {PROCESSES} processes, timeout 300 s, no results; it has no "
        "acknowledgements: AT MOST ONCE, a killed process loses its task",
        0.75,
        acknowledges=False,
    )


def _rq() -> Contestant:
    worker = ("rq", "worker-pool", "-n", str(PROCESSES), "-q", "-c", MODULE)
    return _peer(
        "rq",
        RQ,
        worker,
        f"worker-pool of {PROCESSES} of its default Worker (one fork a job: what makes "
        "its limit of 300 s hard), result_ttl 0, retry 3 times, a lost job too: "
        "at least once",
        0.012,
    )


def _taskiqs() -> list[Contestant]:
    worker = (
        *("taskiq", "worker", f"{MODULE}:broker", "--workers", str(PROCESSES)),
        *("--log-level", "WARNING"),
    )
    settings = (
        f"RedisStreamBroker, {PROCESSES} processes, ack-type when_saved (its default), "
        "timeout 300 s; acknowledges after the run: at least once"
    )
    return [
        _peer(
            "taskiq",
            TASKIQ.format(define="async def"),
            worker,
            f"{settings}; the task is a coroutine, 100 at once",
            0.35,
        ),
        _peer(
            "taskiq sync",
            TASKIQ.format(define="def"),
            worker,
            f"{settings}; the task is a function, in threads",
            0.35,
        ),
    ]


def _peer(
    name: str,
    source: str,
    command: Sequence[str],
    settings: str,
    share: float,
    *,
    acknowledges: bool = True,
) -> Contestant:
    program, *words = command
    side = Side(
        name=name,
        source=source,
        commands=[[str(VENV / "bin" / program), *words]],
        python=str(VENV / "bin" / "python"),
    )
    return Contestant(
        side=side, settings=settings, share=share, acknowledges=acknowledges
    )


def _install() -> dict[str, str]:
    """Bring ``.bench-venv`` up to date; who could not be installed, and why."""
    stamp = VENV / "stamp.json"
    wanted = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        return {}
    print(f"installing {', '.join(PEERS)} into {VENV}", file=sys.stderr)
    venv.create(VENV, clear=True, with_pip=True)
    missing = {name: why for name in PEERS if (why := _install_peer(name))}
    if not missing:
        stamp.write_text(json.dumps(wanted))
    return missing


def _install_peer(name: str) -> str:
    """Install one of them; why it could not be."""
    pip = (VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
    done = subprocess.run(
        [*pip, "install", "--quiet", "-c", PINS, *PEERS[name], *SHARED],
        capture_output=True,
        text=True,
    )
    if not done.returncode:
        return ""
    errors = (line for line in done.stderr.splitlines() if line.startswith("ERROR"))
    return next(errors, f"pip ended with {done.returncode}")


def _versions() -> dict[str, str]:
    """What is installed of what takes part."""
    done = subprocess.run(
        [VENV / "bin" / "python", "-m", "pip", "list", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {*SHARED, *(name for some in PEERS.values() for name in some)}
    found = {one["name"]: one["version"] for one in json.loads(done.stdout)}
    return {name: found[name] for name in sorted(names) if name in found}
