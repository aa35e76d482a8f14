"""A main whose loop turns and that reads nothing from its broker.

A worker imports it with `-I tests.project.deafness`. The file `DEAFNESS` says which: "once"
is over with the next connection, "for good" with the process. What takes half a minute
takes seconds here.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import signals
from django.conf import settings

from tests.project import ledger
from unstuck.worker import hearing, lookout

hearing.DEAF_SECONDS = 3.0
lookout.LOOK_SECONDS = lookout.LONGEST_PAUSE_SECONDS = 0.5

PAUSE_SECONDS = 0.1


@signals.worker_ready.connect
def _begin(sender: Any, **_: Any) -> None:
    threading.Thread(target=_listen_to_the_test, args=(sender,), daemon=True).start()


def _listen_to_the_test(consumer: Any) -> None:
    marker, who = Path(settings.DEAFNESS), Path(f"{settings.DEAFNESS}-who")
    while True:
        time.sleep(PAUSE_SECONDS)
        if not marker.exists():
            continue
        if who.exists() and who.read_text() != str(os.getpid()):
            return  # It is the one before us that was to be deaf.
        who.write_text(str(os.getpid()))
        once = marker.read_text() == "once"
        if once:
            marker.unlink()
        else:
            _never_read_again(consumer)
        consumer.hub.call_soon(_stop_reading, consumer)


def _never_read_again(consumer: Any) -> None:
    """Nor from any connection that comes."""
    transport = type(consumer.conninfo.transport)
    transport.register_with_event_loop = lambda *_: None


def _stop_reading(consumer: Any) -> None:
    """As some versions of kombu do it: nobody looks at the connection any more."""
    hub, crew = consumer.hub, consumer.pool.crew
    hub.on_tick.clear()
    for descriptor in list(hub.readers):
        if descriptor not in (crew.fileno(), hub._waker and hub._waker.fileno()):
            hub.remove_reader(descriptor)
    ledger.write("deaf")
