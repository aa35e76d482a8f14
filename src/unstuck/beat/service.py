"""Celery's beat service, as a process that leads or waits."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from celery import beat
from celery.utils.imports import load_extension_class_names, symbol_by_name

from unstuck import conf
from unstuck.beat.candidate import Candidate
from unstuck.beat.leadership import leadership_of, name_for
from unstuck.beat.record import Record
from unstuck.beat.sending import sending
from unstuck.locks.owner import new_owner, owned_by
from unstuck.pool.board import BEAT, Board, Column

NAMESPACE = "celery.beat_schedulers"


class Service(beat.Service):
    """Celery's loop, which drives a candidate instead of a scheduler."""

    scheduler_cls: Any
    node = ""
    """How people know this beat."""

    alive: Callable[[], None]
    """Called twice a second."""

    def get_scheduler(
        self, lazy: bool = False, extension_namespace: str = NAMESPACE
    ) -> Any:
        """What the loop drives; a ``lazy`` one is only looked at."""
        if lazy:
            return super().get_scheduler(lazy, extension_namespace)
        name = name_for(self.app)
        return Candidate(
            name,
            leadership_of(name),
            self._project_scheduler,
            self.max_interval or beat.DEFAULT_MAX_INTERVAL,
            alive=self.alive,
            tell=Record(name, self.node).look,
        )

    def _project_scheduler(self) -> Any:
        aliases = dict(load_extension_class_names(NAMESPACE))
        own = symbol_by_name(self.scheduler_cls, aliases=aliases)
        self.scheduler_cls = sending(own)
        return super().get_scheduler()

    def live(self, board: Board, *, embedded: bool) -> int:
        """The whole life of a process that is beat, forked by a supervisor."""
        row = board.row(BEAT)
        self.alive = row.beat
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        self.app._after_fork()
        if conf.in_django():
            # Not before there is Django: a project may have none.
            from unstuck.recorder.database import leave_connections_to_parent

            leave_connections_to_parent()
        self.app.set_default()
        self.app.set_current()
        row[Column.READY] = 1
        with owned_by(new_owner(node=self.node)):
            super().start(embedded_process=embedded)
        return 0
