"""What probes cost, `celery inspect ping` beside them.

    .venv/bin/python benchmarks/probes.py [--rounds 20] [--seconds 600]

Wanted: `unstuck probe` within 60 ms of CPU, `/live` within 5 ms, and a worker that is
probed each second for ten minutes has the throughput of one that is not, within 1 %.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.node import Site
from tests.services import Valkey, started

from unstuck import Celery
from unstuck.probes import asking, runtime

UNSTUCK = str(Path(sys.executable).parent / "unstuck")
CELERY = [sys.executable, "-m", "celery", "-A", "tests.project.app"]
FULL, PAIRS = 50_000, 4
"""So many messages wait for so many pairs of seconds: more than those take."""

SETTLE_SECONDS = 1.0


@contextlib.contextmanager
def site_of_our_own() -> Iterator[Site]:
    """A migrated project on a Valkey of its own."""
    with tempfile.TemporaryDirectory() as name, started(Valkey) as server:
        site = Site(directory=Path(name), broker=f"unstuck+{server.url(0)}")
        site.manage("migrate", "-v", "0")
        yield site


def cost_of(site: Site, command: list[str], rounds: int) -> tuple[float, float]:
    """Milliseconds of CPU and of time that a command takes, at the median."""
    cpu, wall = [], []
    for _ in range(rounds):
        before, began = _cpu(), time.monotonic()
        done = subprocess.run(
            command, env=site.environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        wall.append(1000 * (time.monotonic() - began))
        cpu.append(1000 * (_cpu() - before))
    return statistics.median(cpu), statistics.median(wall)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def place_of(site: Site) -> runtime.Place:
    """The socket of the only worker."""
    [place] = runtime.places(site.directory / "run" / "unstuck")
    return place


def answers(connect: Callable[[], socket.socket], rounds: int) -> tuple[float, float]:
    """Milliseconds until `/live` is answered: the median, and the worst of 99 %."""
    took = []
    for _ in range(50 * rounds):
        began = time.monotonic()
        assert asking.ask(connect(), "live").ok
        took.append(1000 * (time.monotonic() - began))
    return statistics.median(took), sorted(took)[int(0.99 * len(took))]


@contextlib.contextmanager
def filler(site: Site) -> Iterator[Callable[[int], None]]:
    """Lets so many messages more wait."""
    app = Celery("probes", broker=site.broker, set_as_current=False)

    @app.task(name="tests.project.tasks.add", ignore_result=True)
    def add(x: int, y: int) -> None:
        """Its message alone: the worker has the body."""

    def fill(count: int) -> None:
        add.delay_many([(1, 2)] * count)

    try:
        yield fill
    finally:
        app.close()


@contextlib.contextmanager
def counter(site: Site) -> Iterator[Callable[[], int]]:
    """Tells how many messages wait."""
    with Celery(broker=site.broker, set_as_current=False) as app:
        channel = app.connection_for_read().default_channel
        yield lambda: int(channel.queue_declare("celery", passive=True).message_count)
        channel.connection.client.release()


def seconds(site: Site, count: int) -> Iterator[tuple[float, float]]:
    """Tasks a second in one second that is left alone, and in one that is not.

    The two are side by side, each order as often: a machine has its moods. Nothing is
    published meanwhile, and messages wait all the time.
    """
    place = place_of(site)
    with filler(site) as fill, counter(site) as waiting:
        for number in range(count):
            if number % PAIRS == 0:
                fill(max(0, FULL - waiting()))
                time.sleep(SETTLE_SECONDS)
            rates = {}
            for asked in (False, True) if number % 2 else (True, False):
                rates[asked] = _second(waiting, place if asked else None)
            yield rates[False], rates[True]


def _second(waiting: Callable[[], int], place: runtime.Place | None) -> float:
    before, began = waiting(), time.monotonic()
    for probe in ("live", "ready", "working") if place else ():
        assert asking.ask(place.connect(5), probe).ok
    time.sleep(max(0.0, began + 1 - time.monotonic()))
    after, took = waiting(), time.monotonic() - began
    assert after, "it had nothing to do at the end"
    return (before - after) / took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    with site_of_our_own() as site, site.node("-c", "2") as node:
        where = ["--runtime-dir", str(site.directory / "run" / "unstuck")]
        time.sleep(5)
        print("                                   CPU, ms    time, ms")
        for name, command in {
            "unstuck probe working": [UNSTUCK, "probe", "working", *where],
            "python -c pass": [sys.executable, "-c", "pass"],
            "celery inspect ping": [*CELERY, "inspect", "ping", "-t", "1"],
        }.items():
            cpu, wall = cost_of(site, command, options.rounds)
            print(f"{name:<34} {cpu:>8.0f} {wall:>11.0f}")
        median, worst = answers(lambda: place_of(site).connect(5), options.rounds)
        print(f"/live, median and 99 %: {median:.2f} ms, {worst:.2f} ms")
        rates = list(seconds(site, options.seconds))
        alone, asked = (statistics.fmean(side) for side in zip(*rates, strict=True))
        error = statistics.stdev(two - one for one, two in rates) / len(rates) ** 0.5
        print(f"tasks a second: {alone:.1f}, probed {asked:.1f}")
        print(
            f"which is {100 * (asked / alone - 1):+.2f} % (standard error "
            f"{100 * error / alone:.2f}; {len(rates)} seconds of each)"
        )
        assert node.supervisor_pid


if __name__ == "__main__":
    main()
