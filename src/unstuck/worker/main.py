"""The worker as a program: with our pool, this process becomes the supervisor.

Celery builds the worker as ever (settings, project, logging, bootsteps), all of it
before there is a thread, a connection or a child. What it would start is then started in
a process of its own, main, which can be started again.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import platforms
from celery.app import backends
from celery.apps import worker as celery_worker
from celery.beat import EmbeddedService
from celery.concurrency import get_implementation
from celery.worker.state import Persistent

from unstuck import conf
from unstuck.configuration import let_main_not_wait_for_results
from unstuck.pool import TaskPool, tracers
from unstuck.pool.board import FIRST_CHILD, MAIN, Board, Column
from unstuck.pool.child import Child
from unstuck.pool.nursery import Nursery
from unstuck.pool.prctl import let_look_at_us
from unstuck.worker import database
from unstuck.worker.channel import FactChannel
from unstuck.worker.children import Children
from unstuck.worker.sdnotify import Notifier
from unstuck.worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

MOST_PREDECESSORS = 8
"""As many mains as may have died within the time of a lease."""


class Worker(celery_worker.Worker):
    """``celery worker``, which with our pool runs below a supervisor."""

    def prepare_args(self, **options: Any) -> dict[str, Any]:
        """Celery's own hook: keep what is the supervisor's business."""
        self.has_supervisor = issubclass(get_implementation(self.pool_cls), TaskPool)
        self.companions: dict[str, Callable[[Board], int | None]] = {}
        """What the supervisor keeps alive beside main, by name."""

        self.facts = FactChannel()
        self.board = Board()
        self._pidfile = None
        if self.has_supervisor:
            self._pidfile = options.pop("pidfile", None)
            if options.pop("beat", False):
                self.companions["beat"] = self._be_beat
        return options

    def start(self) -> None:
        """Work until told to stop."""
        if not self.has_supervisor:
            super().start()
            return
        pidlock = platforms.create_pidlock(self._pidfile) if self._pidfile else None
        try:
            supervisor = self._supervisor()
            self.exitcode = supervisor.run()
        finally:
            if pidlock:
                pidlock.release()
        if supervisor.wants_restart:
            supervisor.notifier.give_back_to(os.environ)
            arguments = _without_workdir(sys.orig_argv[1:])
            os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606

    # The supervisor.

    def _supervisor(self) -> Supervisor:
        self._warn_of_threads()
        self._let_children_log_what_is_printed()
        self._let_go_of_state()
        settings = conf.current()
        self._id = uuid4().hex[:8]
        supervisor = Supervisor(
            node=self.hostname,
            facts=self.facts,
            board=self.board,
            stall_seconds=settings.stall_seconds,
            grace_seconds=self.app.conf.worker_soft_shutdown_timeout,
            notifier=Notifier.take_from(os.environ),
        )
        self._supervised_by = supervisor
        # Found once here and not by each child; this opens no connection.
        backends.by_url(
            self.app.backend_cls or self.app.conf.result_backend, self.app.loader
        )
        tracers.build(self.app, self.hostname)
        gc.collect()
        gc.freeze()  # What is there now stays shared with all that is forked.
        supervisor.children = Children(self.board, self._be_child)
        supervisor.keep("main", self._be_main)
        for name, work in self.companions.items():
            supervisor.keep(name, work)
        return supervisor

    def _warn_of_threads(self) -> None:
        threads = [t for t in threading.enumerate() if t is not threading.main_thread()]
        alien = len(list(Path("/proc/self/task").iterdir())) - 1 - len(threads)
        named = [f"{thread.name} ({_module_of(thread)})" for thread in threads]
        if alien > 0:
            named.append(f"{alien} of C libraries")
        if named:
            logger.warning(
                "Threads were started while the project was imported: %s. They do not "
                "exist in the processes forked from here, and a lock that one of them "
                "holds now stays locked there for ever. Start them in a receiver of "
                "worker_process_init instead.",
                ", ".join(named),
            )

    def _let_children_log_what_is_printed(self) -> None:
        # Celery does so in main, before it forks children there.
        if not self._custom_logging and self.redirect_stdouts:
            self.app.log.redirect_stdouts(self.redirect_stdouts_level)

    def _let_go_of_state(self) -> None:
        """Leave the state database to main, which writes it when it ends."""
        if self._persistence:
            atexit.unregister(self._persistence.save)
            self._persistence.close()

    # Main.

    def _be_main(self, board: Board) -> int:
        supervisor = self._supervised_by
        assert supervisor.main is not None  # noqa: S101 - this is it
        assert supervisor.children is not None  # noqa: S101
        if supervisor.main.starts > 1:
            # What the command line asked to be done once has been done.
            self.purge, self.quiet = False, True
        let_main_not_wait_for_results(self.app.conf)
        self._name_ourselves(supervisor.main.starts)
        if self.hub:
            self.hub.reset()
        state: Any = self._persistence  # type: ignore[has-type] # set by Celery
        if state:
            self._persistence = state = Persistent(
                state.state, self.statedb, self.app.clock
            )
        self.pool.belong_to(Nursery(supervisor.children.take_mains_end(), board))
        self.pool.on_hurry = lambda: self.consumer.give_back_running()
        super().start()
        if state:
            state.save()
        return int(self.exitcode or 0)

    def _name_ourselves(self, starts: int) -> None:
        """Tell a broker that keeps leases who we are, and whose lease is over.

        What the main before us had in hand need not wait until its silence is noticed.
        """
        names = [f"{self.hostname}#{self._id}.{n}" for n in range(1, starts + 1)]
        before = names[:-1][-MOST_PREDECESSORS:]
        self.app.lease_options = {"node": names[-1], "predecessors": before}

    def on_consumer_ready(self, consumer: Any) -> None:
        """Celery's callback when messages come in."""
        super().on_consumer_ready(consumer)
        self.board.row(MAIN)[Column.READY] = 1

    def install_platform_tweaks(self, worker: Any) -> None:
        """What signals mean to main: the supervisor has heard them first."""
        super().install_platform_tweaks(worker)
        if self.has_supervisor:
            self._stop_softly = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._on_sigterm)
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)

    def _on_sigterm(self, number: int, frame: Any) -> None:
        # It may come from the supervisor and, as systemd does it, to all processes: only
        # the board says that it was meant twice.
        hurry = self.board.row(MAIN)[Column.HURRY]
        self.pool.stop_within(
            0.0 if hurry else self.app.conf.worker_soft_shutdown_timeout
        )
        stop, self._stop_softly = self._stop_softly, signal.SIG_IGN
        if callable(stop):
            stop(number, frame)

    # Others.

    def _be_child(self, end: socket.socket, row: int, stack_file: int) -> int:
        supervisor = self._supervised_by
        supervisor.let_go_for_child()
        child = Child(self.app, self.hostname, end, self.board.row(row))
        let_look_at_us(self.board.row(MAIN)[Column.PID])

        def at_birth() -> None:
            if conf.in_django():
                database.install(child.seconds_left)

        return child.live(row - FIRST_CHILD, stack_file, at_birth)

    def _be_beat(self, board: Board) -> int:
        service = EmbeddedService(
            self.app,
            schedule_filename=self.schedule_filename,
            scheduler_cls=self.scheduler,
        )
        service.run()
        return 0


def _without_workdir(arguments: list[str]) -> list[str]:
    """We are in that directory; a relative one would be looked for in itself."""
    left = list(arguments)
    while "--workdir" in left:
        place = left.index("--workdir")
        del left[place : place + 2]
    return [argument for argument in left if not argument.startswith("--workdir=")]


def _module_of(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None) or type(thread).run
    return str(getattr(target, "__module__", "unknown"))
