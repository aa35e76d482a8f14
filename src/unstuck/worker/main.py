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
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import platforms
from celery.app import backends
from celery.apps import worker as celery_worker
from celery.concurrency import get_implementation
from celery.worker.state import Persistent

from unstuck import conf
from unstuck.configuration import let_main_not_wait_for_results
from unstuck.core.errors import SettingsError
from unstuck.fields import Fields
from unstuck.logs import setup
from unstuck.logs.process import become, here
from unstuck.pool import TaskPool, tracers
from unstuck.pool.board import FIRST_CHILD, MAIN, Board, Column
from unstuck.pool.child import Child
from unstuck.pool.nursery import Nursery
from unstuck.pool.prctl import let_look_at_us
from unstuck.worker import database
from unstuck.worker.anew import start_anew
from unstuck.worker.aside import Aside
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
        _refuse_unknown_settings()
        self.has_supervisor = issubclass(get_implementation(self.pool_cls), TaskPool)
        self.companions: dict[str, Callable[[Board], int | None]] = {}
        """What a supervisor keeps alive beside main, by name."""

        self.aside: Aside | None = None
        """What keeps them alive where main has no supervisor above it."""

        self.threads_before_fork: list[str] = []
        """What there was beside the main thread when the supervisor began to fork."""

        self.facts = FactChannel()
        self.board = Board()
        self._pidfile = None
        if self.has_supervisor:
            self._pidfile = options.pop("pidfile", None)
        self.has_beat = self._can_have_beat and options.pop("beat", False)
        """Whether beat is one of the companions; else Celery says why it cannot be."""

        return options

    @property
    def _can_have_beat(self) -> bool:
        return not get_implementation(self.pool_cls).is_green

    def start(self) -> None:
        """Work until told to stop."""
        here.node = self.hostname
        if setup.kind() == "json":
            # Celery prints these beside the log, where each line must be JSON.
            self.emit_banner = lambda: None
            celery_worker.safe_say = setup.say
        if not self.has_supervisor:
            super().start()
            return
        become("supervisor")
        pidlock = platforms.create_pidlock(self._pidfile) if self._pidfile else None
        try:
            supervisor = self._supervisor()
            self.exitcode = supervisor.run()
        finally:
            if pidlock:
                pidlock.release()
        if supervisor.wants_restart:
            start_anew(supervisor.notifier)

    @property
    def pool_name(self) -> str:
        """What runs its tasks, as it can be said on a command line."""
        pool = self.pool_cls
        return pool if isinstance(pool, str) else f"{pool.__module__}:{pool.__name__}"

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
        self.threads_before_fork = named
        if named:
            logger.warning(
                "Threads were started while the project was imported. They do not "
                "exist in the processes forked from here, and a lock that one of them "
                "holds now stays locked there for ever. Start them in a receiver of "
                "worker_process_init instead: %(fields)s",
                Fields(threads=", ".join(named)),
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
        elif isinstance(self.timer, threading.Thread):
            _let_start_here(self.timer)
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
        become("child", number=row - FIRST_CHILD)
        child = Child(self.app, self.hostname, end, self.board.row(row))
        let_look_at_us(self.board.row(MAIN)[Column.PID])

        def at_birth() -> None:
            if conf.in_django():
                database.install(child.seconds_left)

        return child.live(row - FIRST_CHILD, stack_file, at_birth)


def _refuse_unknown_settings() -> None:
    """Say what is wrong with ``UNSTUCK`` before anything asks for it, in one line each.

    Our checks say it as well, later: a connection to Redis Streams asks first.
    """
    try:
        conf.current()
    except SettingsError as error:
        text = f"The worker does not start with these settings:\n{error}"
        raise SystemExit(text) from None


def _let_start_here(thread: threading.Thread) -> None:
    """A thread that was made before a fork: Python 3.13.0 takes it for one that ran."""
    threading.Thread.__init__(thread, name=thread.name, daemon=thread.daemon)


def _module_of(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None) or type(thread).run
    return str(getattr(target, "__module__", "unknown"))
