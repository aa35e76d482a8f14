"""Beats that are killed and frozen: nothing is sent twice, and nothing for long not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from itertools import pairwise

import pytest

from tests.beats import BeatProgram, Mailbox, Sent, beats, every, leader_of
from tests.crash.chaos import SOAK, Record, sized
from tests.sites import MakeSite
from tests.waiting import eventually
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Held

TAKEOVER_SECONDS = 10
SOON_SECONDS = 5
MARGIN = 0 if SOAK else 10
"""In `make test` the machine does other things as well."""

INTERVALS = (1, 2, 7)
SCHEDULE = {f"every {seconds}": every(seconds, str(seconds)) for seconds in INTERVALS}


def led_by_another(locks: Backend, than: Held | None, seconds: float = 30) -> Held:
    """Who leads, once it is another one than that."""

    def other() -> Held | None:
        now = leader_of(locks)
        is_new = now and (than is None or now.owner.token != than.owner.token)
        return now if is_new else None

    return eventually(other, seconds)


@pytest.mark.timeout(1200 if SOAK else 240)
def test_two_beats_and_the_leader_is_hit_again_and_again(
    streams_site: MakeSite, record_property: Record
) -> None:
    """Two beats, the leader killed or frozen every 30 s: no entry twice, none 10 s late."""
    site = streams_site(CELERY_BEAT_SCHEDULE=SCHEDULE)
    locks = backends.at(site.broker)
    with beats(site, "one", "two") as running, Mailbox(site) as mailbox:
        leader = led_by_another(locks, None)
        eventually(lambda: mailbox.of("1"), 30)
        blows = Blows(running, locks)
        until = time.monotonic() + sized(0, 600)
        while not blows.all_done or time.monotonic() < until:
            again_at = time.monotonic() + sized(0, 30)
            leader = blows.hit(leader)
            time.sleep(max(2.0, again_at - time.monotonic()))
        last = time.time()
        for seconds in INTERVALS:
            eventually(
                lambda name=str(seconds): mailbox.of(name)[-1].at > last, seconds + 20
            )

    for name, times in sorted(blows.done.items()):
        record_property(name, times)
    record_property("another one led after, at most (s)", round(max(blows.waits), 2))
    record_property("the same after a SIGTERM (s)", round(max(blows.ends), 2))
    record_property("messages", len(mailbox.sent))
    assert max(blows.waits) < TAKEOVER_SECONDS + MARGIN
    assert max(blows.ends) < SOON_SECONDS + MARGIN
    for seconds in INTERVALS:
        judge(mailbox.of(str(seconds)), seconds, blows.killed_at, record_property)


class Blows:
    """Hits whoever leads, in every way in turn."""

    def __init__(self, running: dict[str, BeatProgram], locks: Backend) -> None:
        self.done: Counter[str] = Counter()
        self.waits: list[float] = []
        self.ends: list[float] = []
        self.killed_at: list[float] = []
        self._running, self._locks = running, locks
        self._ways = [self.kill_all, self.kill_one, self.freeze, self.end]

    @property
    def all_done(self) -> bool:
        """Whether each way was taken."""
        return len(self.done) == len(self._ways)

    def hit(self, leader: Held) -> Held:
        """Do it in the next way; who leads then."""
        way = self._ways[sum(self.done.values()) % len(self._ways)]
        beat = self._running[leader.owner.node.partition("@")[0]]
        time.sleep(random.random())
        began = time.monotonic()
        after = way(beat, leader)
        (self.waits if way != self.end else self.ends).append(after - began)
        self.done[f"times: {way.__name__.replace('_', ' ')}"] += 1
        return self._found

    def _next(self, leader: Held) -> float:
        self._found = led_by_another(self._locks, leader)
        return time.monotonic()

    def kill_all(self, beat: BeatProgram, leader: Held) -> float:
        """SIGKILL to all its processes, and its files are gone: it comes on a new host."""
        self.killed_at.append(time.time())
        beat.kill_tree()
        after = self._next(leader)
        shutil.rmtree(beat.directory)
        beat.directory.mkdir()
        beat.start()
        return after

    def kill_one(self, beat: BeatProgram, leader: Held) -> float:
        """SIGKILL to the process that sends."""
        self.killed_at.append(time.time())
        os.kill(leader.owner.pid, signal.SIGKILL)
        return self._next(leader)

    def freeze(self, beat: BeatProgram, leader: Held) -> float:
        """SIGSTOP until another one leads."""
        pids = beat.tree()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            return self._next(leader)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def end(self, beat: BeatProgram, leader: Held) -> float:
        """SIGTERM: the next one leads at once."""
        assert beat.end() == 0
        after = self._next(leader)
        beat.start()
        return after


def judge(
    sent: list[Sent], interval: int, killed: list[float], record_property: Record
) -> None:
    """What came of one entry, which is due so often."""
    copies = [
        task_id for task_id, n in Counter(one.task_id for one in sent).items() if n > 1
    ]
    # A message that the broker had, and of which its beat could not note that any more.
    explained = [
        task_id
        for task_id in copies
        if any(
            abs(one.at - at) < 0.5
            for one in sent
            if one.task_id == task_id
            for at in killed
        )
    ]
    gaps = [two.at - one.at for one, two in pairwise(sent)]
    late = max(gaps) - interval
    early = interval - min(gaps)
    record_property(f"every {interval} s: sent", len(sent))
    record_property(f"every {interval} s: sent twice", len(copies))
    record_property(f"every {interval} s: late, at most (s)", round(late, 2))
    assert copies == explained
    assert early < 0.5 * interval or copies
    assert late < TAKEOVER_SECONDS + MARGIN
