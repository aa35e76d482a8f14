"""The companions of a worker whose pool is not ours: a small supervisor beside it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker as WorkerProcess
from celery.worker import state

from unstuck import conf
from unstuck.fields import Fields
from unstuck.logs.process import become
from unstuck.pool.board import MAIN, Board, Column
from unstuck.worker import processes
from unstuck.worker.supervisor import EX_SOFTWARE, STOP_SECONDS, Supervisor

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class AsideStep(bootsteps.StartStopStep):
    """Fork it while this process is still clean: nothing is connected, no thread runs."""

    requires = (
        # They say who the companions are.
        "unstuck.recorder.step:RecorderStep",
        "unstuck.probes.step:ProbesStep",
        "unstuck.beat.step:BeatStep",
    )

    def include_if(self, worker: Any) -> bool:
        """Only beside a process that is a worker, and has no supervisor above it."""
        return isinstance(worker, WorkerProcess) and not worker.has_supervisor

    def create(self, worker: Any) -> Aside | None:
        """With our pool the supervisor above keeps them."""
        if not worker.companions:
            return None
        aside = worker.aside = Aside.fork(worker, worker.companions)
        return aside


class WatchAsideStep(bootsteps.StartStopStep):
    """Watch over what was forked, once the pool has forked its children, too.

    A thread that runs before would run beside that fork.
    """

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Only in a process that is a worker."""
        return isinstance(worker, WorkerProcess)

    def start(self, worker: Any) -> None:
        """From now on."""
        if worker.aside:
            worker.aside.watch()


@dataclass(slots=True)
class Aside:
    """A supervisor of the companions alone.

    This process cannot fork it anew: by now it has threads and connections. So without it
    the node stops, and whoever supervises that starts all of it anew.
    """

    pid: int
    board: Board
    companions: str
    """Their names."""

    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _is_gone: bool = False

    @classmethod
    def fork(
        cls, worker: Any, companions: Mapping[str, Callable[[Board], int | None]]
    ) -> Aside:
        """Fork it; it ends with this process."""
        parent = os.getpid()
        worker.board.row(MAIN).clear(parent)

        def supervise() -> int:
            become("supervisor", node=worker.hostname)
            supervisor = Supervisor(
                node=worker.hostname,
                facts=worker.facts,
                board=worker.board,
                stall_seconds=conf.current().stall_seconds,
                given_up=lambda: os.getppid() != parent,
            )
            for name, work in companions.items():
                supervisor.keep(name, work)
            return supervisor.run()

        return cls(processes.fork(supervise), worker.board, ", ".join(companions))

    def start(self) -> None:
        """Nothing: it runs since it was forked."""

    def watch(self) -> None:
        """Stop the node when it ends by itself."""
        self._thread = threading.Thread(
            target=self._watch, name="aside-watch", daemon=True
        )
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            ended = _ended(self.pid)
            if ended is None:
                continue
            self._is_gone = True
            # Where all processes were told to end this one may hear of it a bit later.
            if not self._over.wait(LOOK_SECONDS) and not _is_stopping():
                logger.critical(
                    "The supervisor beside this worker is gone, and with it its companions; "
                    "the worker finishes what it runs and ends, to be started anew: "
                    "%(fields)s",
                    Fields(pid=self.pid, companions=self.companions, ended=ended),
                )
                state.should_stop = EX_SOFTWARE
            return

    def stop(self) -> None:
        """End it and the companions."""
        self.board.row(MAIN)[Column.STOPPING] = 1
        self._over.set()
        if self._thread:
            self._thread.join()
        if not self._is_gone:  # Its pid may be another's by now.
            processes.end(self.pid, 2 * STOP_SECONDS)

    terminate = stop


def _ended(pid: int) -> str | None:
    """How a child has ended, in words; ``None`` while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "unknown"  # Somebody else here has waited for it.
    return processes.in_words(os.waitstatus_to_exitcode(status)) if ended else None


def _is_stopping() -> bool:
    asked = (state.should_stop, state.should_terminate)
    return any(value not in (None, False) for value in asked)
