"""`celery beat` of a site as a real process tree, and what it sends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any

import celery
import redis
from kombu.exceptions import OperationalError

from tests.node import ROOT, Site, children_of
from tests.waiting import eventually
from unstuck.beat.leadership import NAME
from unstuck.dev import tether
from unstuck.locks.backend import Backend, Held

QUEUE = "periodic"


def every(seconds: float, name: str) -> dict[str, Any]:
    """An entry that is sent so often, and read by no worker."""
    return {
        "task": "tests.project.load.tick",
        "schedule": seconds,
        "args": [name],
        "options": {"queue": QUEUE},
    }


class BeatProgram:
    """One `celery beat`, in a directory of its own: hosts share no files."""

    def __init__(self, site: Site, name: str, *options: str) -> None:
        self.name = name
        self.directory = site.directory / name
        self.directory.mkdir(exist_ok=True)
        self.log_path = site.directory / f"{name}.log"
        self._site, self._options = site, options
        self._tether: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        schedule = str(self.directory / "schedule")
        command = [
            *(sys.executable, "-m", "celery", "-A", "tests.project.app", "beat"),
            *("-l", "info", "-s", schedule, *self._options),
        ]
        with self.log_path.open("ab") as log:
            self._tether = tether.spawn(
                command,
                env=self._site.environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def supervisor_pid(self) -> int:
        """The first process."""
        assert self._tether is not None
        tether_pid = self._tether.pid
        return eventually(lambda: next(iter(children_of(tether_pid)), 0), 20)

    @property
    def pid(self) -> int:
        """The process that sends or waits."""
        return eventually(lambda: next(iter(children_of(self.supervisor_pid)), 0), 20)

    def tree(self) -> list[int]:
        """All its processes."""
        return [self.supervisor_pid, *children_of(self.supervisor_pid)]

    def log(self) -> str:
        """All that it wrote."""
        return self.log_path.read_text(errors="replace")

    def end(self, seconds: float = 20) -> int:
        """SIGTERM; its exit status."""
        assert self._tether is not None
        self._tether.terminate()
        return self._tether.wait(seconds)

    def kill_tree(self) -> None:
        """SIGKILL all its processes at once."""
        assert self._tether is not None
        if self._tether.poll() is None:
            self._tether.send_signal(tether.END_NOW)
            self._tether.wait()


@contextmanager
def beats(site: Site, *names: str, options: tuple[str, ...] = ()) -> Iterator[Any]:
    """Running beats by name, gone afterwards with all their processes."""
    made = {name: BeatProgram(site, name, "-n", f"{name}@test") for name in names}
    for beat in made.values():
        beat._options = (*beat._options, *options)
        beat.start()
    try:
        yield made
    except BaseException:
        for beat in made.values():
            print(f"--- {beat.name}\n{beat.log()[-10_000:]}")
        raise
    finally:
        for beat in made.values():
            beat.kill_tree()


def leader_of(locks: Backend) -> Held | None:
    """Which beat leads."""
    return next((one for one in locks.all_held() if one.name.startswith(NAME)), None)


@dataclass(frozen=True)
class Sent:
    """A message of beat, as it came in."""

    entry: str
    task_id: str
    at: float


class Mailbox:
    """Takes all that beats send, as it comes in."""

    def __init__(self, site: Site) -> None:
        self.sent: list[Sent] = []
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Mailbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)

    def of(self, entry: str) -> list[Sent]:
        """What came of one entry."""
        return [one for one in self.sent if one.entry == entry]

    def _read(self) -> None:
        while not self._over.is_set():
            app = celery.Celery(broker=self._site.broker, set_as_current=False)
            try:
                with app.connection_for_read() as connection:
                    self._take(connection.SimpleQueue(QUEUE))
            except (OSError, OperationalError, redis.exceptions.RedisError):
                time.sleep(0.2)  # A test of outages: the broker will be back.
            finally:
                app.close()

    def _take(self, waiting: Any) -> None:
        while not self._over.is_set():
            try:
                message = waiting.get(timeout=0.5)
            except Empty:
                continue
            (entry,), _, _ = message.payload
            self.sent.append(Sent(entry, message.headers["id"], time.time()))
            message.ack()
