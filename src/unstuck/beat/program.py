"""``celery beat``: this process becomes a supervisor, and beat a process below it."""

from __future__ import annotations

import os
from typing import Any

from celery.apps import beat
from celery.utils.nodenames import host_format

from unstuck import conf
from unstuck.beat import service
from unstuck.worker.anew import start_anew
from unstuck.worker.channel import FactChannel
from unstuck.worker.sdnotify import Notifier
from unstuck.worker.supervisor import Supervisor


class Service(service.Service):
    """The service, whose loop runs in a process that is started again when it dies."""

    def start(self, embedded_process: bool = False) -> None:
        """Beat until told to stop."""
        # Celery 5.6 knows no name of a beat.
        self.node = host_format(getattr(self, "hostname", None) or "celerybeat@%h")
        supervisor = Supervisor(
            node=self.node,
            facts=FactChannel(),
            stall_seconds=conf.current().stall_seconds,
            notifier=Notifier.take_from(os.environ),
        )
        supervisor.keep("beat", lambda board: self.live(board, embedded=False))
        code = supervisor.run()
        if supervisor.wants_restart:
            # A pidfile stays meanwhile: it has our pid, and is taken over.
            start_anew(supervisor.notifier)
        if code:
            raise SystemExit(code)


class Beat(beat.Beat):
    """``celery beat``, supervised."""

    Service = Service

    def install_sync_handler(self, service: Any) -> None:
        """Nothing: the supervisor hears the signals, and its beat knows what they mean."""
