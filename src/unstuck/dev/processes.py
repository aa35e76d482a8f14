"""Runs processes side by side, all of them or none."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from unstuck.dev import tether
from unstuck.dev.errors import Asked, ProcessEnded
from unstuck.dev.log import Log

TICK_SECONDS = 0.1
GRACE_SECONDS = 30.0
"""For a warm shutdown: a worker lets its tasks finish for 25 s at most."""
SUPPORT_GRACE_SECONDS = 10.0
KILL_SECONDS = 3.0
CHUNK = 65536


class Processes:
    """Named processes with one log, which end together.

    A context: leaving it ends all of them, SIGTERM first and SIGKILL after a grace,
    and what they started with them; those that `support` the others end last. They
    also end when this process dies, however it dies (see `tether`).

    Everything that waits here raises `ProcessEnded` when a process ends that was to
    stay, and `Asked` on SIGINT, SIGTERM, SIGHUP or the death of our own parent. A
    second signal while they end kills what is left. Started under `nohup`, hangups
    and the parent's death do not matter.
    """

    def __init__(
        self,
        log: Log,
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.log = log
        self._env = dict(env)
        self._cwd = cwd
        self._grace_seconds = grace_seconds
        self._processes: list[_Process] = []
        self._selector = selectors.DefaultSelector()
        self._signals = _Signals()

    def __enter__(self) -> Processes:
        self._signals.catch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._end()
        finally:
            self._signals.release()
            self._selector.close()

    def start(
        self, name: str, command: Sequence[str], *, support: bool = False
    ) -> None:
        """Start `command`; from now on it is to stay."""
        self._launch(name, command, support=support)

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run `command` to its end; `ProcessEnded` unless that is a success."""
        process = self._launch(name, command, once=True)
        self.wait_until(lambda: not process.is_left)
        if process.status:
            raise ProcessEnded(name, process.status)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Pass on what the processes say until `condition` holds."""
        while not condition():
            self._turn()
            for process in self._processes:
                if process.status is not None and not process.once:
                    raise ProcessEnded(process.name, process.status)
            if self._signals.caught or not self.log.is_open:
                raise Asked

    def _launch(
        self,
        name: str,
        command: Sequence[str],
        *,
        support: bool = False,
        once: bool = False,
    ) -> _Process:
        output, writing = os.pipe()
        child = tether.spawn(
            command,
            env=self._env,
            cwd=self._cwd,
            stdout=writing,
            stderr=subprocess.STDOUT,
        )
        os.close(writing)
        process = _Process(name, child, output, support=support, once=once)
        self._processes.append(process)
        self._selector.register(output, selectors.EVENT_READ, process)
        return process

    def _turn(self) -> None:
        """Wait a moment for output, write it down, and see who has ended."""
        for key, _ in self._selector.select(TICK_SECONDS):
            process: _Process = key.data
            for line in process.read():
                self.log.write(process.name, line)
            if not process.is_open:
                self._selector.unregister(key.fd)
                os.close(key.fd)
        for process in self._processes:
            process.look()

    def _end(self) -> None:
        main = [each for each in self._processes if not each.support]
        support = [each for each in self._processes if each.support]
        self._end_all(main, self._grace_seconds)
        self._end_all(support, SUPPORT_GRACE_SECONDS)

    def _end_all(self, processes: Sequence[_Process], seconds: float) -> None:
        asked = self._signals.caught
        self._send(signal.SIGTERM, processes)
        self._wait(processes, seconds, lambda: self._signals.caught > asked)
        self._send(tether.END_NOW, processes)
        self._wait(processes, KILL_SECONDS)
        self._send(signal.SIGKILL, processes)
        self._wait(processes, KILL_SECONDS)

    def _send(self, number: int, processes: Sequence[_Process]) -> None:
        for process in processes:
            process.send(number)

    def _wait(
        self,
        processes: Sequence[_Process],
        seconds: float,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        give_up_at = time.monotonic() + seconds
        while any(process.is_left for process in processes):
            if is_over() or time.monotonic() >= give_up_at:
                return
            self._turn()


class _Process:
    def __init__(
        self,
        name: str,
        child: subprocess.Popen[bytes],
        output: int,
        *,
        support: bool,
        once: bool,
    ) -> None:
        self.name = name
        self.support = support
        self.once = once
        self.status: int | None = None
        self.is_open = True
        self._child = child
        self._output = output
        self._rest = b""

    @property
    def is_left(self) -> bool:
        """Whether it still runs or has something to say."""
        return self.status is None or self.is_open

    def look(self) -> None:
        self.status = self._child.poll()

    def send(self, number: int) -> None:
        if self._child.poll() is None:
            self._child.send_signal(number)

    def read(self) -> Iterator[str]:
        data = os.read(self._output, CHUNK)
        self.is_open = bool(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines.append(self._rest)
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")


class _Signals:
    """Counts the requests to end, instead of dying of them."""

    def __init__(self) -> None:
        self._received = 0
        self._parent = os.getppid()
        self._previous: dict[int, object] = {}
        self._watches_parent = False

    @property
    def caught(self) -> int:
        orphaned = self._watches_parent and os.getppid() != self._parent
        return self._received + orphaned

    def catch(self) -> None:
        survives_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._watches_parent = not survives_hangup
        numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        if survives_hangup:
            numbers.remove(signal.SIGHUP)
        for number in numbers:
            self._previous[number] = signal.signal(number, self._receive)

    def release(self) -> None:
        for number, handler in self._previous.items():
            with contextlib.suppress(TypeError):  # a handler that C code has set
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received += 1
