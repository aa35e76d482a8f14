"""One child, as main sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from enum import Enum, auto

from unstuck.pool import proc, stack, wire
from unstuck.pool.board import Column, Row
from unstuck.pool.death import Death, cause_of, memory_limit
from unstuck.pool.evidence import Evidence
from unstuck.pool.job import Job
from unstuck.pool.nursery import Born
from unstuck.pool.pace import SHORT_SECONDS
from unstuck.pool.wire import Kind, Packet

LONGEST_DUMP = 256 * 1024
LIVELY_SECONDS = 2 * SHORT_SECONDS
EXIT = Packet(Kind.EXIT, 0, b"")


class State(Enum):
    """What may be asked of a child."""

    STARTING = auto()
    SERVING = auto()
    WORN = auto()
    """It has done its share: it leaves when its successor is up."""

    LEAVING = auto()
    """It was asked to exit, or its line is closed: it gets no more jobs."""

    KILLED = auto()


class Member:
    """A child's line, its jobs, and the facts about it."""

    def __init__(self, born: Born, row: Row) -> None:
        self.number = born.row
        self.pid = born.pid
        self.row = row
        self.end = born.end
        self.state = State.STARTING
        self.born = time.monotonic()
        self.jobs: deque[Job] = deque()
        """What it was given and has not answered, in its order; the first one runs."""

        self.given = 0
        self.rss: int | None = None
        self.main_thread: int | None = None
        self.ended_by = ""
        """Why we ended it, if we did."""

        self.kill_at: float | None = None
        """When it must have ended by itself."""

        self.closed = False
        """Whether its descriptors may be somebody else's by now."""

        self._other_end = born.other_end
        self._handle = born.handle
        self._stack_file = born.stack_file

    def __repr__(self) -> str:
        return f"child {self.pid}"

    @property
    def current(self) -> Job | None:
        """The job that runs."""
        try:
            return self.jobs[0]
        except IndexError:  # Not asked before: the watch may take it away in between.
            return None

    @property
    def running(self) -> Job | None:
        """The job that the child says it runs, also while main hears no answers."""
        number = self.row[Column.JOB]
        if self.state is State.KILLED or number == self.row[Column.DONE]:
            return None
        return next((job for job in self.jobs if job.number == number), None)

    @property
    def has_begun(self) -> bool:
        """Whether it has got to any of its jobs; main may not have heard of all."""
        number = self.row[Column.JOB]
        return not self.jobs or any(job.number == number for job in self.jobs)

    @property
    def running_since(self) -> float:
        """When it began with that, on the monotonic clock."""
        return self.row[Column.STARTED] / 1e9

    @property
    def is_free(self) -> bool:
        """Whether it waits for a job."""
        return self.state is State.SERVING and not self.jobs

    def is_lively(self, now: float) -> bool:
        """Whether it is free, or will be in a moment if what it runs is short."""
        if self.state is not State.SERVING:
            return False
        job = self.current
        return job is None or now - (job.started or now) < LIVELY_SECONDS

    def give(self, job: Job) -> bool:
        """Hand it a job; ``False`` if its line takes no more now."""
        packet = Packet(Kind.JOB, job.number, job.payload)
        if not wire.send(self.end, packet, wait=False):
            return False
        job.sent = True
        self.given += 1
        self.jobs.append(job)
        return True

    def take_back(self) -> list[Job]:
        """The jobs that it has not even taken; they are nobody's any more."""
        untaken = set()
        with contextlib.suppress(wire.GoneError, wire.BrokenPacketError):
            while packet := wire.receive(self._other_end, wait=False):
                untaken.add(packet.number)
            if EXIT.number in untaken:
                wire.send(self.end, EXIT, wait=False)
        back = [job for job in self.jobs if job.number in untaken]
        self.jobs = deque(job for job in self.jobs if job.number not in untaken)
        for job in back:
            job.sent = False
            job.started = None
        self.given -= len(back)
        return back

    def ask_to_leave(self, seconds: float) -> None:
        """Let it exit when it has answered what it has; kill it if it does not."""
        if self.state in (State.STARTING, State.SERVING, State.WORN):
            self.state = State.LEAVING
            self.kill_at = time.monotonic() + seconds
            with contextlib.suppress(wire.GoneError):
                wire.send(self.end, EXIT, wait=False)

    def interrupt(self, job: Job, number: signal.Signals) -> None:
        """Have the soft limit raised in the child while it runs this very job."""
        self.row[Column.SOFT] = job.number
        self.signal_if_caught(number)

    def signal(self, number: int) -> None:
        """Send it a signal; never to a process that took its number."""
        if not self.closed:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def signal_if_caught(self, number: int) -> None:
        """Send it a signal that would kill it if its task has removed the handler."""
        if proc.catches(self.pid, number):
            self.signal(number)

    def kill(self, why: str) -> None:
        """End it at once, with the processes that it started."""
        self.state = State.KILLED
        self.ended_by = self.ended_by or why
        if self.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            # As long as this works, the number of the group cannot be another's.
            signal.pidfd_send_signal(self._handle, 0)
            started = list(proc.descendants_of(self.pid))
            # Some may belong to another user, and are not ours to end.
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            for pid in started:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def forget_dump(self) -> None:
        """Make room for the next stack that the child writes."""
        if not self.closed:
            os.lseek(self._stack_file, 0, os.SEEK_SET)
            os.ftruncate(self._stack_file, 0)

    def dump(self) -> bytes:
        """What the child has written of its stacks."""
        return b"" if self.closed else os.pread(self._stack_file, LONGEST_DUMP, 0)

    def evidence(self, job: Job) -> Evidence:
        """Add to a job's evidence what is known of this process now."""
        evidence = job.evidence
        evidence.rss_bytes = proc.rss_of(self.pid) or self.rss
        evidence.cpu_seconds = proc.cpu_seconds_of(self.pid)
        evidence.child_age_seconds = time.monotonic() - self.born
        evidence.interrupted = self.row[Column.INTERRUPTED] == job.number
        return evidence

    def evidence_of_end(self, job: Job, death: Death) -> Evidence:
        """Add to a job's evidence why this process ended while it ran it."""
        evidence = job.evidence
        evidence.rss_bytes = self.rss or death.peak_rss_bytes
        evidence.cpu_seconds = death.cpu_seconds
        evidence.child_age_seconds = death.age_seconds
        evidence.cause = cause_of(
            death,
            ended_by_us=self.ended_by,
            rss_bytes=evidence.rss_bytes,
            memory_limit=memory_limit(),
        )
        dump = self.dump()
        if stack.is_fatal(dump):
            evidence.stack = stack.readable(dump, self.main_thread)
        return evidence

    def close(self) -> None:
        """Let go of everything that belongs to it; called with the crew's lock held."""
        self.closed = True
        self.end.close()
        self._other_end.close()
        os.close(self._handle)
        os.close(self._stack_file)
