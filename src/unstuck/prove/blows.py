"""What hits the nodes, and when: planned before, carried out one at a time."""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass

from unstuck.prove.account import (
    CHILD_KILLED,
    MAIN_KILLED,
    NODE_FROZEN,
    TREE_KILLED,
    Loss,
)
from unstuck.prove.ledger import Ledger, Run
from unstuck.prove.nodes import Node, Nodes

PAUSE_SECONDS = 0.5
"""Between two kills, at least."""

SECONDS_A_KILL = 2.5
"""How many there are when nobody says."""

SECONDS_A_TREE = 10
"""A whole node takes seconds to start: so long it must last."""

SECONDS_A_FREEZE = 30
LEAST_SECONDS_TO_FREEZE = 10

MOST_MAINS = 4
"""Of one node within a minute; eight would be a crash loop, and the end of the node."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One thing that is to happen, so many seconds after the beginning."""

    at: float
    kind: str


def fit_into(seconds: float) -> int:
    """How many kills fit into so many seconds."""
    return int(seconds / PAUSE_SECONDS)


def kills_for(seconds: float) -> int:
    """How many kills there are when nobody says."""
    return max(1, int(seconds / SECONDS_A_KILL))


def plan(seconds: float, kills: int, dice: random.Random) -> list[Blow]:
    """So many kills of all kinds, evenly over so many seconds, and some freezes."""
    trees = min(kills // 3, max(1, kills // 8), max(1, int(seconds / SECONDS_A_TREE)))
    minutes = max(1, int(seconds / 60))
    mains = min(kills // 2, max(1, kills // 5), MOST_MAINS * minutes)
    kinds = [TREE_KILLED] * trees + [MAIN_KILLED] * mains
    kinds += [CHILD_KILLED] * (kills - len(kinds))
    dice.shuffle(kinds)
    every = seconds / kills
    blows = [
        Blow((number + dice.random()) * every, kind)
        for number, kind in enumerate(kinds)
    ]
    if seconds >= LEAST_SECONDS_TO_FREEZE:
        freezes = max(1, int(seconds / SECONDS_A_FREEZE))
        blows += [
            Blow((number + dice.uniform(0.2, 0.6)) * seconds / freezes, NODE_FROZEN)
            for number in range(freezes)
        ]
    return sorted(blows, key=lambda blow: blow.at)


class Fate:
    """Carries the blows out as they are due, on nodes that can be hit just then."""

    def __init__(
        self,
        blows: list[Blow],
        nodes: Nodes,
        ledger: Ledger,
        dice: random.Random,
        freeze_seconds: float,
    ) -> None:
        self.losses: list[Loss] = []
        self._due = deque(blows)
        self._nodes = nodes
        self._ledger = ledger
        self._dice = dice
        self._freeze_seconds = freeze_seconds
        self._frozen: tuple[Node, float] | None = None
        self._not_before = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing is to come and nobody is frozen."""
        return not self._due and self._frozen is None

    def turn(self, elapsed: float) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._frozen and now >= self._frozen[1] + self._freeze_seconds:
            self.thaw()
        if self._due and elapsed >= self._due[0].at and now >= self._not_before:
            blow = self._due.popleft()
            if self._strike(blow.kind):
                self._not_before = now + PAUSE_SECONDS
            else:
                self._due.insert(min(1, len(self._due)), blow)

    def stop(self) -> None:
        """Let go of whoever is frozen, and forget what is to come."""
        self.thaw()
        self._due.clear()

    def thaw(self) -> None:
        """Let the frozen node go on."""
        if self._frozen:
            node, since = self._frozen
            node.thaw()
            self._frozen = None
            self._note(NODE_FROZEN, since, node=node.name)

    def _strike(self, kind: str) -> bool:
        """Whether somebody could be hit."""
        if kind == CHILD_KILLED:
            return self._kill_child()
        ready = [node for node in self._nodes.all if node.main and not node.frozen]
        if not ready:
            return False
        at_work = {run.node for run in self._ledger.going_on}
        busy = [node for node in ready if node.name in at_work]
        node, start = self._dice.choice(busy or ready), time.monotonic()
        if kind == NODE_FROZEN:
            return self._freeze(node, start)
        if kind == MAIN_KILLED:
            node.kill(node.main or 0)
            self._ledger.mains.pop(node.name, None)
            # Its children end when they notice, or when they are told to.
            self._note(kind, start, more=0.5, node=node.name)
            return True
        node.kill_tree()
        self._note(kind, start, node=node.name)
        node.start()
        return True

    def _freeze(self, node: Node, start: float) -> bool:
        if self._frozen:
            return False
        node.freeze()
        self._frozen = node, start
        return True

    def _kill_child(self) -> bool:
        """Kill one that runs a task."""
        busy = [(run, node) for run in self._ledger.going_on if (node := self._of(run))]
        if not busy:
            return False
        run, node = self._dice.choice(busy)
        start = time.monotonic()
        node.kill(run.pid)
        self._note(CHILD_KILLED, start, pid=run.pid)
        return True

    def _of(self, run: Run) -> Node | None:
        """The node that runs it, if it does so at this moment."""
        for node in self._nodes.all:
            if node.name == run.node and not node.frozen and run.pid in node.pids:
                return node
        return None

    def _note(
        self,
        kind: str,
        start: float,
        *,
        more: float = 0.0,
        node: str = "",
        pid: int = 0,
    ) -> None:
        self.losses.append(Loss(kind, start, time.monotonic() + more, node, pid))
