"""Time limits where Celery keeps none: the threads and solo pools.

A thread cannot be killed. What can be done inside one process is done: an exception is
raised in the task's thread, as soon as it runs Python code; at the hard limit the message
is settled whatever the thread does, and another thread takes its place. A process that
is stuck beyond help (solo, or C code that holds the GIL) exits, for whatever started it
to start it again.
"""

from __future__ import annotations

import ctypes
import faulthandler
import heapq
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from celery.concurrency import solo
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker.state import requests

from unstuck.core.limits import Limits
from unstuck.fields import Fields
from unstuck.pool import stack

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5
"""How long after its hard limit a task may take to get out of the way."""

WAKE_UP = signal.SIGURG
"""Interrupts a system call of the main thread; its default is to be ignored."""

EX_SOFTWARE = 70

ROOM = 1000
"""Alarms that may lie there before those of ended tasks are cleared away."""

STDERR = 2


class HardTimeLimitExceeded(BaseException):
    """Unwinds a task that passed its hard limit; no ``except Exception`` stops it."""


OURS = (SoftTimeLimitExceeded, HardTimeLimitExceeded)


@dataclass(slots=True)
class Run:
    """One task that runs in one thread."""

    task_id: str
    thread_id: int
    limits: Limits
    started: float
    raised: bool = False
    request: Any = None
    """Main's view of the task, once its hard limit has passed."""

    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Watch:
    """Sees to it that the tasks of this process keep their limits."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self._alarms: list[tuple[float, int, Any, Run]] = []
        self._room = ROOM
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="limits", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(WAKE_UP, lambda *_: None)
        self._thread.start()

    def stop(self) -> None:
        """Nothing: what still runs at a shutdown keeps its limits, too."""

    def stack_of(self, task_id: str) -> tuple[str, str] | None:
        """Where a task of this process stands now; ``None`` if it does not run."""
        for _, _, _, run in list(self._alarms):
            if run.task_id == task_id and not run.over:
                return _stack_of(run.thread_id), ""
        return None

    @contextmanager
    def over(self, task_id: str, tell: Callable[[], Limits]) -> Iterator[None]:
        """Watch over the task that runs in this block of this thread."""
        limits = tell()
        run = Run(task_id, threading.get_ident(), limits, time.monotonic())
        if limits.soft:
            self._set(run.started + limits.soft, self._at_soft_limit, run)
        if limits.hard:
            self._set(run.started + limits.hard, self._at_hard_limit, run)
        try:
            try:
                yield
            finally:
                _leave(run)
        except OURS:
            # It may have come on the way into _leave().
            _leave(run)
            raise

    def _set(self, at: float, action: Any, run: Run) -> None:
        with self._changed:
            if len(self._alarms) >= self._room:
                self._forget_what_is_over()
            heapq.heappush(self._alarms, (at, next(self._numbers), action, run))
            self._changed.notify()

    def _forget_what_is_over(self) -> None:
        """Alarms of short tasks would pile up until their time comes."""
        self._alarms = [alarm for alarm in self._alarms if not alarm[3].over]
        heapq.heapify(self._alarms)
        self._room = max(ROOM, 2 * len(self._alarms))

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._due():
                    self._arm_dead_mans_switch()
                    self._changed.wait(self._seconds_to_next())
                _, _, action, run = heapq.heappop(self._alarms)
            if not run.over:
                self._act(action, run)

    def _act(self, action: Any, run: Run) -> None:
        # Settling may take longer than the switch allows, and holds no GIL.
        faulthandler.cancel_dump_traceback_later()
        try:
            action(run)
        except Exception:
            # The other tasks of this process still need their watch.
            logger.exception(
                "The limit of task %(task)s was not enforced",
                Fields(task_id=run.task_id),
            )

    def _due(self) -> bool:
        while self._alarms and self._alarms[0][3].over:
            heapq.heappop(self._alarms)
        return bool(self._alarms) and self._alarms[0][0] <= time.monotonic()

    def _seconds_to_next(self) -> float | None:
        if not self._alarms:
            return None
        return max(0.0, self._alarms[0][0] - time.monotonic())

    def _arm_dead_mans_switch(self) -> None:
        """Exit, with all stacks, should the GIL be held beyond the next alarm.

        This very thread could not run then; faulthandler's is written in C.
        """
        seconds = self._seconds_to_next()
        if seconds is None:
            faulthandler.cancel_dump_traceback_later()
            return
        # Not sys.stderr: a worker has a logger there, which has no file.
        faulthandler.dump_traceback_later(
            seconds + 2 * GRACE_SECONDS, exit=True, file=STDERR
        )

    def _at_soft_limit(self, run: Run) -> None:
        self._raise(run, SoftTimeLimitExceeded)

    def _at_hard_limit(self, run: Run) -> None:
        run.request = requests.get(run.task_id)
        if run.request is not None:
            where = _stack_of(run.thread_id)
            run.request.on_hard_limit(run.limits.hard, stack=where)
        self._raise(run, HardTimeLimitExceeded)
        self._set(time.monotonic() + GRACE_SECONDS, self._after_grace, run)

    def _after_grace(self, run: Run) -> None:
        logger.critical(
            "Task %(task)s is stuck beyond its hard limit where no exception reaches it. "
            "A task that must be killed needs a pool of processes: %(fields)s",
            Fields(task_id=run.task_id, stack=_stack_of(run.thread_id)),
        )
        if isinstance(self.pool, solo.TaskPool):
            if run.request is not None:
                run.request.acknowledge_at_once()
            sys.stderr.flush()
            os._exit(EX_SOFTWARE)
        self.pool.executor._max_workers += 1

    def _raise(self, run: Run, error: type[BaseException]) -> None:
        with run.lock:
            if run.over:
                return
            run.raised = True
            _raise_in(run.thread_id, error)
        if run.thread_id == threading.main_thread().ident:
            signal.pthread_kill(run.thread_id, WAKE_UP)


def _leave(run: Run) -> None:
    """End the run, and with it whatever was meant to interrupt it."""
    while not run.over:
        try:
            with run.lock:
                if run.raised:
                    # Perhaps not delivered yet, and nobody else's business.
                    _raise_in(run.thread_id, None)
                run.over = True
        except OURS:
            # Delivered right here: the task had come to its end before.
            continue


def _raise_in(thread_id: int, error: type[BaseException] | None) -> None:
    argument = ctypes.py_object() if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), argument)


def _stack_of(thread_id: int) -> str:
    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return ""
    return stack.of_frame(frame)
