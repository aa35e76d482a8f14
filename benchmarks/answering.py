"""A broker, and what a fleet answers to the questions of the dashboard.

    answering.py BROKER NAME …

For ``benchmarks/dashboard.py``: nodes in name alone, which answer by Celery's remote control
as idle workers do: with Redis Streams what waits for its time is on the broker. How long real
ones take, who are busy, is theirs; silent ones are waited for two seconds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from unstuck import Celery
from unstuck.dev import tether
from unstuck.dev.ports import free_port
from unstuck.dev.valkey import ValkeyServer
from unstuck.worker.remote import PLANNED_COMMAND, WHERE_COMMAND

DELAYED = 1_000
"""Messages that the broker keeps for their time."""

READY = b"ready"


@contextmanager
def broker() -> Iterator[str]:
    """The address of one that leaves nothing behind, where messages wait for their time."""
    with tempfile.TemporaryDirectory() as directory:
        server = ValkeyServer(Path(directory), free_port(), append_only=False)
        server.start()
        try:
            yield f"unstuck+{server.url()}"
        finally:
            server.stop()


@contextmanager
def answered(url: str, nodes: Sequence[str]) -> Iterator[None]:
    """These nodes answer meanwhile, half of them in a process each."""
    with _answering(url, nodes[::2]), _answering(url, nodes[1::2]):
        yield


@contextmanager
def _answering(url: str, nodes: Sequence[str]) -> Iterator[None]:
    command = [sys.executable, __file__, url, *nodes]
    process = tether.spawn(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        yield
    finally:
        process.send_signal(tether.END_NOW)
        process.wait()


def delay(app: Any) -> None:
    """Let messages wait on the broker for their time."""
    for number in range(DELAYED):
        app.send_task("mail.tasks.send_1", (number,), countdown=3_600 + number)


def main(url: str, *nodes: str) -> None:
    """Answer until the end."""
    app = Celery("shop", broker=url, set_as_current=False)
    with app.connection_for_read() as connection:
        handlers = {
            WHERE_COMMAND: lambda state, **_: {"state": "", "revoked": False},
            PLANNED_COMMAND: lambda state, **_: {"total": 0, "rows": []},
        }
        for name in nodes:
            # A channel for each: kombu's channel hears an exchange for one queue.
            node = app.control.mailbox.Node(
                name, channel=connection.channel(), handlers=handlers
            )
            node.listen()
        print(READY.decode(), flush=True)
        while True:
            connection.drain_events()


if __name__ == "__main__":
    main(*sys.argv[1:])
