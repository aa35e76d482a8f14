"""A process of its own that takes messages and does as it is told, to be killed or frozen.

Run as ``python -m tests.contract.peer URL QUEUE OPTIONS``: a command on each line of its
input, an answer in JSON on a line of its output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu

from tests.contract.brokers import Inbox
from tests.node import ROOT


class Peer:
    """The other side of such a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        """To send it signals."""
        return self.process.pid

    def ask(self, command: str) -> Any:
        """Have it do something; what it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def peer(url: str, queue: str, **options: Any) -> Iterator[Peer]:
    """Such a process, gone afterwards."""
    options = {"lease_seconds": 1, **options}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, url, queue, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        try:
            yield Peer(process)
        finally:
            process.kill()


def main(url: str, name: str, options: str) -> None:
    """Do what is told until the input ends."""
    connection = kombu.Connection(url, transport_options=json.loads(options))
    queue = kombu.Queue(name, kombu.Exchange(f"ex-{name}"), routing_key=name)
    inbox = Inbox(connection, queue, prefetch=100)
    for line in sys.stdin:
        command, *arguments = line.split()
        answer = COMMANDS[command](inbox, *map(int, arguments))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _ack(inbox: Inbox) -> int:
    for message in inbox.messages:
        message.ack()
    return len(inbox.messages)


COMMANDS: dict[str, Any] = {
    "take": lambda inbox, number: inbox.wait_for(number),
    "ack": _ack,
    "node": lambda inbox: inbox.channel.desk.node,
    "is_ours": lambda inbox: [
        inbox.channel.is_ours(message.delivery_tag) for message in inbox.messages
    ],
    "zombies": lambda inbox: inbox.channel.desk.zombies,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
