"""The end of a node whose processes take their time."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal, threading, time

from unstuck.pool.board import Board
from unstuck.worker import supervisor
from unstuck.worker.channel import FactChannel
from unstuck.worker.children import Children

supervisor.STOP_SECONDS = 1.0

def stay(board):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)

class Counting(supervisor.Supervisor):
    waits = 0

    def _wait(self):
        self.waits += 1
        super()._wait()

board = Board()
node = Counting(
    node="node", facts=FactChannel(), stall_seconds=30, board=board,
    children=Children(board, lambda *of_a_child: 0),
)
node.keep("main", stay)
node.keep("recorder", stay)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
node.run()
print(node.waits)
"""


def test_the_last_ones_are_waited_for_at_rest() -> None:
    """Main is late and killed, so its line is closed; the recorder takes its time."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )

    assert int(done.stdout) < 100
