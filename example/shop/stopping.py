"""How a command that runs until it is told to stop is told."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Wait = Callable[[float | None], bool]
"""Wait for so many seconds, or for ever, and say whether it is time to stop."""


@contextmanager
def stopped_by_signal() -> Iterator[Wait]:
    """Let SIGTERM and SIGINT end a wait, in place of the process."""
    reading, writing = os.pipe()
    # A handler may interrupt any line, one that holds the lock of a threading.Event
    # included, so it must not want that lock. Writing a byte wants nothing.
    previous = {
        number: signal.signal(number, lambda *_: os.write(writing, b"."))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda seconds: bool(select.select([reading], [], [], seconds)[0])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
