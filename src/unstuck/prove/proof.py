"""One proof: tasks are sent, nodes are hit, and every id is looked for."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from unstuck import project
from unstuck.core.errors import ProofFailed
from unstuck.letters.letter import Letter
from unstuck.prove.account import KILLS, Account, Loss
from unstuck.prove.apart import (
    CONCURRENCY,
    JOB,
    Plan,
    lease_seconds,
    your_recovery_seconds,
)
from unstuck.prove.archiving import archive_and_forget
from unstuck.prove.blows import Fate, plan
from unstuck.prove.corner import Corner
from unstuck.prove.ledger import SUCCEEDED, Ledger
from unstuck.prove.nodes import NAMES, START_SECONDS, Nodes

TURN_SECONDS = 0.05
LETTERS_SECONDS = 0.5
LOAD = 0.5
"""Which part of what the nodes could run is sent."""

LONGEST_MEAN_SECONDS = 0.5
ONE_IN_FAILS = 20
PATIENCE_SECONDS = 15.0
"""Beyond a lease: how long nothing may come to an end before the rest is looked for."""

SURE_SECONDS = 3.0
"""Likewise, before the broker is asked whether it has anything at all."""

SETTLE_SECONDS = 3.0
"""What a main on a busy machine may take from the end of a run to its acknowledgement."""

FREEZE_SECONDS = 4.0
LONGEST_LEASE_TO_FREEZE = 15.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done."""

    seconds: float
    """How long tasks are sent and nodes are hit."""

    kills: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found."""

    id: str
    account: Account
    losses: Sequence[Loss]
    kills_asked: int
    letters: Sequence[Letter]
    archived: int
    """How many of the letters the database of the project took."""

    database_error: str
    seconds: float
    lease: float | None
    your_recovery: float | None
    """On stock Redis: after how long at most the project's own workers get back what a
    dead one had."""

    ended_by_themselves: int
    directory: str
    """Where logs and ledger are, if they were kept."""

    @property
    def is_proved(self) -> bool:
        """Whether every id is accounted for, and every run."""
        return not self.account.missing and not self.account.unexplained

    @property
    def kills(self) -> int:
        """How many processes or nodes were killed."""
        return sum(loss.kind in KILLS for loss in self.losses)

    @property
    def buried(self) -> Counter[str]:
        """How many ids were buried, by reason."""
        reasons = {letter.task_id: letter.reason.value for letter in self.letters}
        return Counter(reasons.values())


def prove(app: Any, order: Order, say: Say) -> Result:
    """Do it. Raises ``ProofFailed`` and ``BrokerUnreachable``; nothing is left then."""
    directory = Path(tempfile.mkdtemp(prefix="unstuck-prove-"))
    keep = False
    try:
        result = Proof(app, order, directory, say).run()
        keep = not result.is_proved or bool(result.account.lost)
        return result
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


class Proof:
    """One run of it."""

    def __init__(self, app: Any, order: Order, directory: Path, say: Say) -> None:
        self._app = app
        self._order = order
        self._directory = directory
        self._say = say
        self._dice = random.Random()  # noqa: S311 - no secrets are drawn
        path = directory / "ledger"
        self._plan = Plan(
            id=uuid4().hex[:8], home=project.home_of(app), ledger=str(path)
        )
        self._ledger = Ledger(path)
        self._sent: set[str] = set()
        self._unsure: set[str] = set()
        self._next_letters = 0.0

    def run(self) -> Result:
        """From the first process to the last trace."""
        began = time.monotonic()
        yours = your_recovery_seconds(self._app)
        lease = lease_seconds(self._app)
        with Corner(self._app, self._plan) as corner:
            with Nodes(self._plan, self._ledger, self._directory) as nodes:
                self._corner, self._nodes = corner, nodes
                self._wait_until_ready()
                self._fate = self._make_fate(lease)
                self._send_and_hit()
                self._wait_for_the_rest(PATIENCE_SECONDS + (lease or 0.0))
            corner.wait_for_leave()
            corner.read_letters()
            self._ledger.read()
            account = self._account(corner.left())
            archived, database_error = archive_and_forget(self._app, corner.letters)
        return Result(
            id=self._plan.id,
            account=account,
            losses=self._fate.losses,
            kills_asked=self._order.kills,
            letters=corner.letters,
            archived=archived,
            database_error=database_error,
            seconds=time.monotonic() - began,
            lease=lease,
            your_recovery=yours,
            ended_by_themselves=nodes.ended_by_themselves,
            directory=str(self._directory),
        )

    def _make_fate(self, lease: float | None) -> Fate:
        order = self._order
        return Fate(
            plan(order.seconds, order.kills, self._dice),
            self._nodes,
            self._ledger,
            self._dice,
            _freeze_seconds(lease, order.seconds),
        )

    def _wait_until_ready(self) -> None:
        self._say(f"Starting {len(NAMES)} worker nodes on queue {self._plan.queue} …")
        give_up_at = time.monotonic() + START_SECONDS
        while not self._ledger.read() or not self._nodes.are_ready:
            if time.monotonic() > give_up_at:
                words = self._nodes.all[0].last_words()
                raise ProofFailed(
                    f"The worker nodes did not consume within {START_SECONDS:g} s, so "
                    f"nothing was tried. The last that one said:\n{words}"
                )
            time.sleep(TURN_SECONDS)

    def _send_and_hit(self) -> None:
        order = self._order
        self._say(
            f"Within {order.seconds:g} s: sending {order.tasks} tasks, killing {order.kills} "
            f"times …"
        )
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < order.seconds:
            due = int(order.tasks * elapsed / order.seconds) + 1
            self._send(min(due, order.tasks))
            self._turn(elapsed)
        self._send(order.tasks)
        # What nobody could be found for until now has its time for a moment longer.
        late = time.monotonic() + order.seconds / 4
        while not self._fate.is_over and time.monotonic() < late:
            self._turn(order.seconds)
        self._fate.stop()

    def _send(self, until: int) -> None:
        mean = LOAD * len(NAMES) * CONCURRENCY * self._order.seconds / self._order.tasks
        longest = 2 * min(mean, LONGEST_MEAN_SECONDS)
        while len(self._sent) + len(self._unsure) < until:
            task_id = str(uuid4())
            fails = self._dice.randrange(ONE_IN_FAILS) == 0
            job = (self._plan.ledger, self._dice.uniform(0, longest), fails)
            if not self._corner.send(JOB, job, task_id):
                self._unsure.add(task_id)
                return  # It may have taken seconds: the nodes are to be hit meanwhile.
            self._sent.add(task_id)

    def _turn(self, elapsed: float) -> None:
        self._ledger.read()
        self._fate.turn(elapsed)
        self._nodes.start_again()
        if time.monotonic() >= self._next_letters:
            self._corner.read_letters()
            self._corner.give_back()
            self._next_letters = time.monotonic() + LETTERS_SECONDS
        time.sleep(TURN_SECONDS)

    def _wait_for_the_rest(self, patience: float) -> None:
        """Until all have come to their end, or nothing has moved for a while."""
        seen, give_up_at = 0, time.monotonic() + patience
        ask_at = time.monotonic() + SURE_SECONDS
        if left := len(self._unended()):
            self._say(f"Waiting for what has not ended ({left}) …")
        while self._unended() and time.monotonic() < give_up_at:
            self._turn(self._order.seconds)
            signs = len(self._ledger.runs) + len(self._succeeded())
            if signs > seen:
                seen, give_up_at = signs, time.monotonic() + patience
                ask_at = time.monotonic() + SURE_SECONDS
            elif time.monotonic() > ask_at:
                if self._corner.has_nothing:
                    return
                ask_at = time.monotonic() + SURE_SECONDS

    def _unended(self) -> set[str]:
        buried = {letter.task_id for letter in self._corner.letters}
        return self._sent - self._succeeded() - buried

    def _succeeded(self) -> set[str]:
        return {run.task_id for run in self._ledger.runs if run.how == SUCCEEDED}

    def _account(self, on_broker: set[str]) -> Account:
        buried = Counter(letter.task_id for letter in self._corner.letters)
        losses = self._fate.losses
        return Account(
            self._sent,
            self._unsure,
            self._ledger.runs,
            buried,
            losses,
            on_broker,
            SETTLE_SECONDS,
        )


def _freeze_seconds(lease: float | None, seconds: float) -> float:
    """Longer than the lease, so that others take over, if there is time for it."""
    if lease is None or lease > min(LONGEST_LEASE_TO_FREEZE, seconds / 2):
        return min(FREEZE_SECONDS, seconds / 3)
    return lease + 2
