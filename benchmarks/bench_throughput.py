"""How many empty tasks a second: stock Celery and unstuck, side by side in one run.

    .venv/bin/python benchmarks/bench_throughput.py [--tasks 3000] [--rounds 3]

Each round starts a fresh worker on an empty embedded Valkey with all tasks waiting, and
takes the time from the first to the last task; the two take turns. Both acknowledge
late, with prefork, the same concurrency and the same prefetch, so that what differs is
what unstuck adds. The best round of each counts: noise only makes slower.
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
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from unstuck.dev import tether
from unstuck.dev.ports import free_port
from unstuck.dev.valkey import ValkeyServer

APP = """
import os, time
from {module} import Celery
app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 8
app.conf.worker_max_tasks_per_child = None
app.conf.task_ignore_result = True

@app.task(name="bench.noop")
def noop(number):
    with open(os.environ["BENCH_TIMES"], "a") as times:
        times.write(f"{{time.monotonic()}}\\n")
"""


def measure(module: str, tasks: int, concurrency: int) -> float:
    """Tasks a second of one fresh worker."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        valkey = ValkeyServer(directory, free_port(), append_only=False)
        server = tether.spawn(valkey.command, stdout=subprocess.DEVNULL)
        try:
            while not valkey.answers():
                time.sleep(0.05)
            return _run(module, directory, valkey.url(0), tasks, concurrency)
        finally:
            server.send_signal(tether.END_NOW)
            server.wait()


def _run(
    module: str, directory: Path, broker: str, tasks: int, concurrency: int
) -> float:
    (directory / "bench.py").write_text(APP.format(module=module))
    times = directory / "times"
    times.touch()
    environment = {
        **os.environ,
        "BENCH_BROKER": broker,
        "BENCH_TIMES": str(times),
        "PYTHONPATH": str(directory),
        "PYTHONWARNINGS": "ignore",
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    send = f"from bench import noop\nfor number in range({tasks}): noop.delay(number)"
    subprocess.run(
        [sys.executable, "-c", send], env=environment, cwd=directory, check=True
    )
    worker = tether.spawn(
        [
            *(sys.executable, "-m", "celery", "-A", "bench", "-q", "worker"),
            *("-c", str(concurrency), "--without-mingle", "--without-gossip"),
        ],
        env=environment,
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while len(stamps := times.read_text().splitlines()) < tasks:
            time.sleep(0.1)
    finally:
        worker.send_signal(tether.END_NOW)
        worker.wait()
    seconds = float(max(stamps, key=float)) - float(min(stamps, key=float))
    return tasks / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=2)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"celery": [], "unstuck": []}
    for _ in range(options.rounds):
        for module, measured in rates.items():
            measured.append(measure(module, options.tasks, options.concurrency))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.platform()}"
    )
    print(
        f"Python {platform.python_version()}, Celery {version('celery')}, "
        f"kombu {version('kombu')}, {options.tasks} empty tasks, -c {options.concurrency}"
    )
    for module, measured in rates.items():
        print(
            f"{module:8} best {max(measured):7.0f}/s  "
            f"median {statistics.median(measured):7.0f}/s"
        )
    ratio = max(rates["unstuck"]) / max(rates["celery"])
    print(f"unstuck / celery: {ratio:.2f}")


if __name__ == "__main__":
    main()
