"""The children that main has: who runs what, who comes and who goes.

Everything here is called from the thread of main's event loop, but for what the watch
does to children, which it does under the same lock. Who is called back is called from
the event loop's thread, without the lock.
"""

from __future__ import annotations

import logging
import os
import pickle
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from billiard.exceptions import Terminated, WorkerLostError
from billiard.pool import MaybeEncodingError

from unstuck.fields import Fields
from unstuck.pool import answers, wire
from unstuck.pool.answers import Answer, Seen, info_of
from unstuck.pool.board import MAIN, Column
from unstuck.pool.child import SOFT_SIGNAL
from unstuck.pool.death import Death, cause_of, kind_of
from unstuck.pool.job import Job
from unstuck.pool.leases import Leases
from unstuck.pool.member import Member, State
from unstuck.pool.nursery import Born, Died, Nursery, Unborn
from unstuck.pool.pace import Pace
from unstuck.pool.staff import Staff
from unstuck.pool.terms import Terms
from unstuck.pool.wire import Kind, Packet

logger = logging.getLogger(__name__)

HANDFUL = 16
"""How many jobs that come together are given together."""

TERMINATE_SECONDS = 5
"""How long a child may take to die of a signal that shall end its task."""


class Crew:
    """The children of this node."""

    def __init__(self, nursery: Nursery, terms: Terms) -> None:
        self.terms = terms
        self.lock = threading.RLock()
        self.members: dict[int, Member] = {}
        self.on_new_deadline: Callable[[float], None] = lambda at: None
        self.call_soon: Callable[[Callable[[], Any]], Any] | None = None
        """Has the event loop call a function in its next round."""

        self._nursery = nursery
        self._main_row = nursery.board.row(MAIN)
        self._counts = nursery.board.tally.sheet(MAIN)
        self._waiting: deque[Job] = deque()
        self._extras: deque[Job] = deque()
        self._due: deque[Callable[[], Any]] = deque()
        self._pace = Pace()
        self.staff = Staff(nursery, terms, self.members, lambda: len(self._extras))
        self.leases = Leases()
        self._will_dispatch = False
        self._tasks_are_over = False
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._bell, selectors.EVENT_READ, self._on_bell)
        self._selector.register(nursery.line, selectors.EVENT_READ, self._hear_nursery)

    # For the event loop.

    def fileno(self) -> int:
        """Readable when ``turn`` has something to do."""
        return self._selector.fileno()

    def turn(self, seconds: float = 0.0) -> None:
        """Do what there is to do; wait so long for something to do."""
        for key, _ in self._selector.select(seconds):
            key.data()
        while self._due:
            self._call(self._due.popleft())
        self.dispatch()
        self.staff.replenish()

    def later(self, function: Callable[[], Any]) -> None:
        """Have the event loop's thread call a function, soon."""
        self._due.append(function)
        os.eventfd_write(self._bell, 1)

    def _on_bell(self) -> None:
        os.eventfd_read(self._bell)

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        self._main_row.beat()  # Many that wait for the broker are not one that hangs.
        try:
            function(*args)
        except Exception:
            # One delivery's trouble must not stop the others.
            logger.exception(
                "What main does for a delivery raised: %(fields)s",
                Fields(function=function),
            )

    # Jobs.

    def submit(self, job: Job) -> None:
        """Have a job run as soon as a child is free."""
        (self._extras if job.extra else self._waiting).append(job)
        if job.extra:
            self.staff.births.count_anew()
        if self.terms.threaded:
            os.eventfd_write(self._bell, 1)
        elif self.call_soon is None or len(self._waiting) >= HANDFUL:
            self.dispatch()
        elif not self._will_dispatch:
            # Those that come together are given together: a child that gets several in
            # a row is woken once, and so is main by its answers.
            self._will_dispatch = True
            self.call_soon(self.dispatch)

    def appetite(self) -> int:
        """How many jobs more could be taken now without one that waits long.

        None, unless all that ran lately was short and no child is busy for longer.
        """
        now = time.monotonic()
        if not self._pace.is_calm(now):
            return 0
        with self.lock:
            lively = [m for m in self.members.values() if m.is_lively(now)]
            stuck = sum(bool(m.jobs) for m in self.members.values() if m not in lively)
            in_hand = len(self._waiting) + sum(len(m.jobs) for m in lively)
        slots = min(len(lively), self.terms.limit - stuck)
        return max(0, slots * self._pace.at_once() - in_hand)

    def dispatch(self) -> None:
        """Give waiting jobs to free children."""
        self._will_dispatch = False
        while pick := self._pick():
            job, member = pick
            if self._may_start(job) and not self._hand(job, member):
                return

    def _may_start(self, job: Job) -> bool:
        try:
            return job.may_start()
        except Exception:
            # Whoever cannot say whether it is still wanted has not said no.
            logger.exception(
                "Who is asked whether a task may start raised: %(fields)s",
                Fields(function=job.may_start),
            )
            return True

    def _pick(self) -> tuple[Job, Member] | None:
        if not (self._waiting or self._extras):
            return None
        with self.lock:
            for queue in (self._extras, self._waiting):
                while queue and queue[0].cancelled:
                    queue.popleft()
                member = self._taker(queue[0]) if queue else None
                if member:
                    return queue.popleft(), member
        return None

    def _taker(self, job: Job) -> Member | None:
        free, running = None, 0
        for member in self.members.values():
            if member.jobs:
                alive = member.state is not State.KILLED
                running += alive and not member.jobs[0].extra
            elif member.state is State.SERVING and (
                free is None or member.given > free.given
            ):
                free = member
        if free and (job.extra or running < self.terms.limit):
            # The one that has done most: its spare stays fresh.
            return free
        if job.extra or not self._pace.is_short(job.name):
            return None
        taker, fewest, now = None, self._pace.at_once(), time.monotonic()
        for member in self.members.values():
            if 0 < len(member.jobs) < fewest and self._may_take_more(member, now):
                taker, fewest = member, len(member.jobs)
        return taker

    def _may_take_more(self, member: Member, now: float) -> bool:
        """Whether another short job would not wait long behind those that a child has."""
        most, first = self.terms.tasks_per_child, member.jobs[0]
        return (
            not first.extra
            and not (most and member.given >= most)
            # Those behind it were known to be short when they were given.
            and self._pace.is_short(first.name)
            and member.is_lively(now)
        )

    def _hand(self, job: Job, member: Member) -> bool:
        with self.lock:
            try:
                taken = member.state is State.SERVING and member.give(job)
            except wire.GoneError:
                taken, member.state = False, State.LEAVING
            if not taken:
                self._put_back([job])
        if taken and member.current is job:
            self._begin(member, job)
        return taken

    def _begin(self, member: Member, job: Job) -> None:
        job.started = time.monotonic()
        limits = [limit for limit in (job.soft, job.hard) if limit]
        if limits:
            self.on_new_deadline(job.started + min(limits))
        self._call(job.accept_callback, member.pid, job.started)

    def _put_back(self, jobs: Iterable[Job]) -> None:
        for job in reversed(list(jobs)):
            if job.extra:
                self._extras.appendleft(job)
            elif not self._tasks_are_over:
                self._waiting.appendleft(job)

    def drop_waiting(self) -> None:
        """Forget what no child has begun with: the broker has it."""
        self._will_dispatch = False  # The event loop begins anew, too.
        with self.lock:
            back = [job for m in self.members.values() for job in m.take_back()]
            self._put_back(job for job in back if job.extra)
            self._waiting.clear()

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing runs, nor waits, nor is to be told."""
        with self.lock:
            busy = self._waiting or self._extras or self._due
            return not busy and not any(m.jobs for m in self.members.values())

    # What children say.

    def _hear(self, member: Member) -> None:
        if self.members.get(member.number) is not member:
            return  # Its death was told in the same turn.
        try:
            while packet := wire.receive(member.end, wait=False):
                self._on_packet(member, packet)
        except wire.GoneError:
            self._stop_listening(member)
        except wire.BrokenPacketError as error:
            logger.warning(
                "A child is not to be trusted, and killed: %(fields)s",
                Fields(child=member, error=error),
            )
            member.kill(f"its line is damaged: {error}")

    def _on_packet(self, member: Member, packet: Packet) -> None:
        if packet.kind is Kind.READY:
            member.main_thread = pickle.loads(packet.payload)  # noqa: S301
            self.staff.births.went_well()
            if member.state is State.STARTING:
                member.state = State.SERVING
                self.staff.relieve_worn()
        elif packet.kind is Kind.DONE:
            self._on_done(member, packet)
        elif packet.kind in (Kind.CLAIM, Kind.UNCLAIM):
            self.leases.hear(member, packet)

    def _on_done(self, member: Member, packet: Packet) -> None:
        answer = _answer_in(packet)
        seen = answer.seen
        with self.lock:
            if not member.jobs or member.jobs[0].number != packet.number:
                return  # The watch was quicker: it has ended already.
            job = member.jobs.popleft()
            member.rss = seen.rss_bytes
            if job.terminated and member.state is State.SERVING:
                # It has come to its end by itself; what comes next is not to blame.
                member.kill_at, member.ended_by = None, ""
        evidence = job.evidence
        evidence.rss_bytes = seen.rss_bytes
        evidence.rss_growth_bytes = seen.rss_growth_bytes
        evidence.interrupted = seen.interrupted
        if not seen.interrupted:
            evidence.soft_stack = ""
        self._pace.learn(job.name, seen.seconds)
        if member.jobs and self.staff.is_fat(member):
            self.recall(member)
        self.staff.dismiss_if_due(member)
        self._call(job.callback if answer.ok else job.error_callback, answer.value)
        following = member.current
        if following and not following.started:
            self._begin(member, following)

    # Births and deaths.

    def _hear_nursery(self) -> None:
        for event in self._nursery.hear():
            match event:
                case Born():
                    self._on_born(event)
                case Died():
                    self._on_died(event)
                case Unborn():
                    self.staff.births.came()
                    self.staff.births.postpone(event.why)

    def _on_born(self, born: Born) -> None:
        member = Member(born, self._nursery.board.row(born.row))
        self.staff.births.came()
        with self.lock:
            self.members[born.row] = member
        self._selector.register(
            member.end, selectors.EVENT_READ, partial(self._hear, member)
        )
        if self.terms.closed:
            member.kill("shutdown")

    def _on_died(self, died: Died) -> None:
        member = self.members.get(died.row)
        if member is None or member.pid != died.death.pid:
            return
        self._hear(member)  # Its last words.
        self.leases.died(member)
        self._stop_listening(member)
        with self.lock:
            back = member.take_back()
            left = list(member.jobs)
            del self.members[died.row]
        # What it runs is the first of them; the others it had taken and not begun.
        begun = left[:1] if left and left[0].number == died.job else []
        for job in left[len(begun) :]:
            job.sent, job.started = False, None
        with self.lock:
            self._put_back([*left[len(begun) :], *back])
        ended_by = member.ended_by or ("shutdown" if self.terms.closed else "")
        kind = kind_of(died.death, ended_by_us=ended_by, busy=bool(begun))
        self._counts.count("children", kind)
        self._note_birth_that_failed(member, died.death)
        for job in begun:
            self._on_lost(member, job, died.death)
        with self.lock:
            member.jobs.clear()
            member.state = State.KILLED
            member.close()
        self.staff.count_anew()

    def _note_birth_that_failed(self, member: Member, death: Death) -> None:
        if member.state is not State.STARTING or self.terms.closed:
            return
        cause = cause_of(death, ended_by_us=member.ended_by)
        self.staff.births.postpone(f"child {member.pid} was not ready yet: {cause}")

    def _on_lost(self, member: Member, job: Job, death: Death) -> None:
        evidence = member.evidence_of_end(job, death)
        error: Exception = WorkerLostError(evidence.cause)
        if job.terminated:
            error = Terminated(-job.terminated)
        self._call(job.error_callback, info_of(error))

    def _stop_listening(self, member: Member) -> None:
        if member.end in self._selector.get_map():
            self._selector.unregister(member.end)

    # Size.

    def resize(self, limit: int) -> None:
        """Run so many jobs at once from now on."""
        self.terms.limit = limit
        self.staff.dismiss_surplus()
        self.dispatch()
        self.staff.count_anew()

    # Ends.

    def terminate(self, pid: int, number: int) -> None:
        """End the task that runs in a child with a signal, as somebody asked."""
        for member in self.members.values():
            job = member.current
            if member.pid != pid or job is None:
                continue
            if number == SOFT_SIGNAL:
                member.interrupt(job, SOFT_SIGNAL)
                return
            job.terminated = number
            member.row[Column.TERMINATE] = job.number
            member.ended_by = f"ended by {signal.Signals(number).name} on request"
            job.evidence.cause = member.ended_by
            member.kill_at = time.monotonic() + TERMINATE_SECONDS
            self.on_new_deadline(member.kill_at)
            member.signal(number)

    def detach(self, member: Member, job: Job) -> bool:
        """Take the job that runs from a child that is about to be killed.

        ``False`` if it has come to its end meanwhile. Called with the lock held.
        """
        if member.running is not job:
            return False
        self._put_back(member.take_back())
        jobs = list(member.jobs)
        place = jobs.index(job)
        # What went before has ended, and its answers wait to be read.
        member.jobs = deque(jobs[:place])
        for taken in jobs[place + 1 :]:
            taken.sent, taken.started = False, None
        self._put_back(jobs[place + 1 :])
        return True

    def recall_all(self) -> None:
        """Take back whatever children have not begun with."""
        for member in list(self.members.values()):
            self.recall(member)

    def recall(self, member: Member) -> None:
        """Take back what waits behind a job that takes longer than expected."""
        with self.lock:
            self._put_back(member.take_back())

    def end_tasks(self, why: str) -> None:
        """End what runs, and forget what waits; hooks go on."""
        with self.lock:
            self._tasks_are_over = True
            self._waiting.clear()
            for member in self.members.values():
                if member.current and not member.current.extra:
                    member.kill(why)

    def kill_all(self, why: str) -> None:
        """End all children at once."""
        with self.lock:
            for member in self.members.values():
                member.kill(why)

    def close(self) -> None:
        """Let go of everything."""
        self.leases.close()
        with self.lock:
            for member in self.members.values():
                member.close()
            self.members.clear()
        self._selector.close()
        os.close(self._bell)

    def find(self, task_id: str) -> Member | None:
        """The child that runs the job of this name, as ``Job.correlation_id`` has it."""
        with self.lock:
            for member in self.members.values():
                if member.current and member.current.correlation_id == task_id:
                    return member
        return None


def _answer_in(packet: Packet) -> Answer:
    """What a child said; a failure if what it said cannot be read here."""
    try:
        return answers.unpacked(packet.payload)
    except Exception as error:
        said = MaybeEncodingError(error, f"{len(packet.payload)} bytes")
        return Answer(False, info_of(said), Seen(0.0, 0, 0, False))
