"""The nodes of a proof, started, hit and ended here, and nothing but them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from django.conf import settings

from unstuck.core.errors import ProofFailed
from unstuck.dev import tether
from unstuck.prove.apart import Plan
from unstuck.prove.ledger import Ledger

NAMES = ("a", "b")
START_SECONDS = 60.0
STOP_SECONDS = 15.0
LOG_LINES = 12


class Node:
    """One node: a tether, and below it a worker with all its processes."""

    def __init__(self, name: str, plan: Plan, ledger: Ledger, log: Path) -> None:
        self.name = f"prove-{plan.id}-{name}@{socket.gethostname()}"
        self.frozen = False
        self._plan = plan
        self._ledger = ledger
        self._log = log
        self._tether: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it anew."""
        self._ledger.mains.pop(self.name, None)
        command = [sys.executable, "-m", "unstuck.prove.node"]
        with self._log.open("ab") as log:
            self._tether = tether.spawn(
                [*command, self._plan.to_json(), self.name],
                env=_environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def is_running(self) -> bool:
        """Whether its first process has not ended."""
        return self._tether is not None and self._tether.poll() is None

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return tether.descendants(self._tether.pid) if self._tether else []

    @property
    def main(self) -> int | None:
        """The process that consumes, if one does."""
        pid = self._ledger.mains.get(self.name)
        return pid if pid in self.pids else None

    def kill(self, pid: int) -> None:
        """SIGKILL one of its processes."""
        _signal_all({pid} & set(self.pids), signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP all its processes."""
        self.frozen = True
        _signal_all(self.pids, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        _signal_all(self.pids, signal.SIGCONT)
        self.frozen = False

    def ask_to_stop(self) -> None:
        """SIGTERM, as a deployment does."""
        if self._tether and self.is_running:
            self._tether.send_signal(signal.SIGTERM)

    def kill_tree(self) -> None:
        """SIGKILL all its processes at once."""
        if self._tether and self.is_running:
            self._tether.send_signal(tether.END_NOW)
            self._tether.wait()

    def last_words(self) -> str:
        """The end of what it has written."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


class Nodes:
    """All of them, within a ``with`` block; none is left after it."""

    def __init__(self, plan: Plan, ledger: Ledger, directory: Path) -> None:
        self.all = [
            Node(name, plan, ledger, directory / f"node-{name}.log") for name in NAMES
        ]
        self.ended_by_themselves = 0

    def __enter__(self) -> Nodes:
        for node in self.all:
            node.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def are_ready(self) -> bool:
        """Whether all consume. Raises ``ProofFailed`` when one has ended instead."""
        for node in self.all:
            if not node.is_running:
                raise ProofFailed(
                    f"A worker node did not start with these settings, so nothing was "
                    f"tried. The last it said:\n{node.last_words()}"
                )
        return all(node.main for node in self.all)

    def start_again(self) -> None:
        """Start what has ended by itself, and count it."""
        for node in self.all:
            if not node.is_running:
                self.ended_by_themselves += 1
                node.start()

    def stop(self) -> None:
        """End all in order, and what does not end in time at once."""
        for node in self.all:
            node.thaw()
            node.ask_to_stop()
        give_up_at = time.monotonic() + STOP_SECONDS
        while any(node.is_running for node in self.all):
            if time.monotonic() > give_up_at:
                break
            time.sleep(0.05)
        for node in self.all:
            node.kill_tree()


def _environment() -> Mapping[str, str]:
    """Ours, with which another interpreter finds the same project."""
    places = [place or os.getcwd() for place in sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE,
    }
    environment.pop("NOTIFY_SOCKET", None)
    return environment


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
