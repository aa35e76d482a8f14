"""Sees to it that children keep their limits, whatever main's event loop is doing.

A thread of its own: main may wait for a broker that is away while a task passes its
limit. It writes down where the task stands, kills, and leaves it to the event loop to
tell whom it concerns.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable
from functools import partial
from signal import SIGCONT

from billiard.exceptions import WorkerLostError

from unstuck.fields import Fields
from unstuck.pool import kernel, proc, stack
from unstuck.pool.answers import info_of
from unstuck.pool.child import SOFT_SIGNAL, STACK_SIGNAL
from unstuck.pool.crew import Crew
from unstuck.pool.job import Job
from unstuck.pool.member import Member, State

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often memory is measured, and whatever else has no deadline is looked at."""

BATCH_SECONDS = 0.05
"""How long short jobs may wait behind one that turns out to be long."""

START_SECONDS = 60
"""How long a child may take to get ready."""

BEGIN_SECONDS = 5
"""How long a child that waits for a job may take to begin with one."""

DUMP_SECONDS = 0.25
"""How long a stack is waited for; a stopped process writes none."""

TOO_FAT = 2
"""Times the memory limit at which a child is killed in the middle of a task."""

MIB = 1024 * 1024


class Watch:
    """The thread that watches a crew."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._bell = threading.Event()
        self._wakes_at = 0.0
        self._next_look = 0.0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._stopping = False
        self._dumping = threading.Lock()
        crew.on_new_deadline = self.expect

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopping = True
        self._bell.set()
        self._thread.join()

    def expect(self, at: float) -> None:
        """There is a deadline at this time of the monotonic clock."""
        if at < self._wakes_at:
            self._bell.set()

    def stack_of(self, task_id: str) -> tuple[str, str] | None:
        """Where a running task stands now, and what it waits for; it is not disturbed.

        ``None`` if it does not run here.
        """
        member = self._crew.find(task_id)
        if member is None:
            return None
        dumps = self._stacks([member])
        return dumps[member], kernel.waiting_for(member.pid)

    def _run(self) -> None:
        while not self._stopping:
            self._bell.wait(self._sleep_seconds())
            self._bell.clear()
            try:
                self._look()
            except Exception:
                # The children still need their watch.
                logger.exception("The watch over the children stumbled")
                time.sleep(LOOK_SECONDS)

    def _sleep_seconds(self) -> float:
        now = time.monotonic()
        with self._crew.lock:
            deadlines = [d for m in self._members() for d in _deadlines(m)]
            batches = any(len(m.jobs) > 1 for m in self._members())
        longest = BATCH_SECONDS if batches else LOOK_SECONDS
        self._wakes_at = min(now + longest, *deadlines, math.inf)
        return max(0.0, self._wakes_at - now)

    def _members(self) -> list[Member]:
        return list(self._crew.members.values())

    def _look(self) -> None:
        now = time.monotonic()
        with self._crew.lock:
            running = [(m, job) for m in self._members() if (job := m.running)]
            overdue = [m for m in self._members() if _is_overdue(m, now)]
        hard = [(m, j) for m, j in running if _passed(m, j.hard, now)]
        soft = [
            (m, j) for m, j in running if _passed(m, j.soft, now) and not j.soft_done
        ]
        self._at_soft_limit([pair for pair in soft if pair not in hard])
        self._at_hard_limit(hard)
        for member in overdue:
            self._kill_overdue(member)
        self._recall(running, now)
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._measure(running)

    # Limits.

    def _at_soft_limit(self, due: list[tuple[Member, Job]]) -> None:
        stacks = self._stacks([member for member, _ in due])
        for member, job in due:
            with self._crew.lock:
                if member.running is not job:
                    continue
                job.soft_done = True
                job.evidence.soft_stack = stacks[member]
                member.interrupt(job, SOFT_SIGNAL)
            self._crew.later(partial(job.timeout_callback, True, job.soft))

    def _at_hard_limit(self, due: list[tuple[Member, Job]]) -> None:
        for job in self._kill(due, "hard limit"):
            if job.extra:
                logger.error(
                    "A hook took too long and is killed: %(fields)s",
                    Fields(hook=job.name, seconds=job.hard),
                )
            self._crew.later(partial(job.timeout_callback, False, job.hard))

    def _measure(self, running: Iterable[tuple[Member, Job]]) -> None:
        allowed = self._crew.terms.memory_bytes
        for member, job in running:
            member.rss = proc.rss_of(member.pid) or member.rss
            if allowed and (member.rss or 0) > TOO_FAT * allowed:
                self._end_fat(member, job, allowed)

    def _end_fat(self, member: Member, job: Job, allowed: int) -> None:
        used = (member.rss or 0) // MIB
        cause = f"memory: {used} MiB used of {allowed // MIB} MiB allowed"
        for killed in self._kill([(member, job)], cause):
            killed.evidence.cause = cause
            error = info_of(WorkerLostError(cause))
            self._crew.later(partial(killed.error_callback, error))

    def _kill(self, due: list[tuple[Member, Job]], why: str) -> list[Job]:
        """Write down where jobs stand and kill their children; the jobs that it hit."""
        waits = {member: kernel.waiting_for(member.pid) for member, _ in due}
        stacks = self._stacks(list(waits), wake=True)
        hit = []
        for member, job in due:
            # Who waits in turns, as psycopg does, is seen running now and then.
            if waits[member] == kernel.RUNNING:
                waits[member] = kernel.waiting_for(member.pid) or kernel.RUNNING
            evidence = member.evidence(job)
            with self._crew.lock:
                if not self._crew.detach(member, job):
                    continue
                hit.append(job)
                member.kill(why)
            evidence.stack, evidence.waiting_for = stacks[member], waits[member]
        return hit

    def _kill_overdue(self, member: Member) -> None:
        doing = "start" if member.state is State.STARTING else "go on"
        stacks = self._stacks([member])
        waits = kernel.waiting_for(member.pid)
        logger.error(
            "A child does not go on and is killed: %(fields)s",
            Fields(
                child=member,
                missing=doing,
                waits_for=waits or "something unknown",
                stack=stacks[member],
            ),
        )
        with self._crew.lock:
            member.kill(member.ended_by or f"it did not {doing} in time")
            member.kill_at = None

    def _recall(self, running: Iterable[tuple[Member, Job]], now: float) -> None:
        for member, _ in running:
            waits = len(member.jobs) > 1
            if waits and now - member.running_since > BATCH_SECONDS:
                self._crew.recall(member)
                self._crew.later(self._crew.dispatch)

    # Stacks.

    def _stacks(
        self, members: list[Member], *, wake: bool = False
    ) -> dict[Member, str]:
        """Where these children stand, asked all at once.

        One that is stopped writes it only when it goes on; ``wake`` lets it.
        """
        if not members:
            return {}
        with self._dumping:
            for member in members:
                self._ask_where_it_stands(member)
                if wake and proc.state_of(member.pid) == "T":
                    member.signal(SIGCONT)
            deadline = time.monotonic() + DUMP_SECONDS
            while time.monotonic() < deadline and not all(
                stack.is_complete(self._dump_of(m), m.main_thread) for m in members
            ):
                time.sleep(0.002)
            return {m: stack.readable(self._dump_of(m), m.main_thread) for m in members}

    def _ask_where_it_stands(self, member: Member) -> None:
        with self._crew.lock:
            member.forget_dump()
            member.signal_if_caught(STACK_SIGNAL)

    def _dump_of(self, member: Member) -> bytes:
        with self._crew.lock:
            return member.dump()


def _passed(member: Member, limit: float | None, now: float) -> bool:
    return bool(limit and now >= member.running_since + limit)


def _deadlines(member: Member) -> Iterable[float]:
    job = member.running
    if member.state is State.KILLED:
        return
    if job and job.soft and not job.soft_done:
        yield member.running_since + job.soft
    if job and job.hard:
        yield member.running_since + job.hard
    if member.kill_at:
        yield member.kill_at


def _is_overdue(member: Member, now: float) -> bool:
    if member.state is State.KILLED:
        return False
    if member.state is State.STARTING and now - member.born > START_SECONDS:
        return True
    job = member.current
    given = job.started if job else None
    if given and now - given > BEGIN_SECONDS and not member.has_begun:
        return True
    return bool(member.kill_at and now >= member.kill_at)
