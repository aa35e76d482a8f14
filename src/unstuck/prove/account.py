"""Whether all that was sent has come to an end, and why what ran again did."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from unstuck.prove.ledger import RETRIED, SUCCEEDED, Run

SETTLE_SECONDS = 1.0
"""What may pass between the end of a run and the server's taking of its ending."""

RECOVERY_SECONDS = 6.0
"""The same, after the server or the node was away."""

CHILD_KILLED = "child killed"
MAIN_KILLED = "main killed"
TREE_KILLED = "tree killed"
NODE_FROZEN = "node frozen"
SERVER_RESTARTED = "server restarted"
SERVER_FROZEN = "server frozen"
CONNECTIONS_CUT = "connections cut"

KILLS = (CHILD_KILLED, MAIN_KILLED, TREE_KILLED)

AWAY = frozenset({SERVER_RESTARTED, SERVER_FROZEN, CONNECTIONS_CUT})
"""What hits no run, but whoever publishes just then cannot know whether it worked."""


@dataclass(frozen=True)
class Loss:
    """Something that happened to a node, a process or the server, and when."""

    kind: str
    start: float
    end: float
    node: str = ""
    pid: int = 0

    def is_of(self, run: Run) -> bool:
        """Whether a run is one of the process or node that it happened to."""
        return self.node in ("", run.node) and self.pid in (0, run.pid)


@dataclass(frozen=True, slots=True)
class Again:
    """One run more than the first one, and the loss that it is due to."""

    task_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took until all that a kill had hit ran again."""

    loss: Loss
    seconds: float


@dataclass
class Account:
    """Every id that was sent, every run, every letter and every loss, compared."""

    sent: set[str]
    unsure: set[str]
    """Those whose sending raised: the broker may have taken them, or not."""

    runs: list[Run]
    buried: Mapping[str, int]
    """How many letters there are of each id."""

    losses: Sequence[Loss]
    on_broker: Collection[str] = ()
    """The ids whose messages were found on the broker at the end."""

    settle_seconds: float = SETTLE_SECONDS

    again: list[Again] = field(init=False, default_factory=list)
    unexplained: list[str] = field(init=False, default_factory=list)
    """What ran again without a loss."""

    overlapping: list[str] = field(init=False, default_factory=list)
    """What was run by two at once although nobody was stopped."""

    def __post_init__(self) -> None:
        self.by_attempt: dict[tuple[str, int], list[Run]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: run.start):
            self.by_attempt[run.task_id, run.attempt].append(run)
        self.succeeded = {run.task_id for run in self.runs if run.how == SUCCEEDED}
        self.started = {run.task_id for run in self.runs}
        for (task_id, attempt), runs in self.by_attempt.items():
            if len(runs) > 1:
                self._explain(task_id, attempt, runs)

    @property
    def lost(self) -> list[str]:
        """The ids that the broker took, and that have not come to an end."""
        taken = self.sent | (self.unsure & self.started)
        return sorted(taken - self.succeeded - set(self.buried))

    @property
    def in_flight(self) -> list[str]:
        """Those of them that the broker still has."""
        return sorted(set(self.lost) & set(self.on_broker))

    @property
    def missing(self) -> list[str]:
        """Those of them that are nowhere."""
        return sorted(set(self.lost) - set(self.on_broker))

    @property
    def causes(self) -> Counter[str]:
        """How many runs were due to each kind of loss."""
        return Counter(each.cause for each in self.again)

    def recoveries(self) -> list[Recovery]:
        """For each kill that hit a run: when the last of what it hit ran again."""
        slowest: dict[Loss, float] = {}
        for runs in self.by_attempt.values():
            for one, other in pairwise(runs):
                if one.end is None and (loss := self._killed_by(one)):
                    seconds = max(0.0, other.start - loss.start)
                    slowest[loss] = max(slowest.get(loss, 0.0), seconds)
        return [Recovery(loss, seconds) for loss, seconds in slowest.items()]

    def _killed_by(self, run: Run) -> Loss | None:
        """The first kill of its process after its last sign of life."""
        kills = [
            loss
            for loss in self.losses
            if loss.kind in KILLS and loss.end >= run.last_sign and loss.is_of(run)
        ]
        return min(kills, key=lambda loss: loss.start, default=None)

    def _explain(self, task_id: str, attempt: int, runs: list[Run]) -> None:
        # What could not publish its retry runs again instead.
        hits = [self._hits(run, publishes=run.how == RETRIED) for run in runs]
        earlier = [
            "retry published twice: " + cause
            for before in range(attempt)
            for run in self.by_attempt[task_id, before]
            for cause in self._hits(run, publishes=True)
        ]
        causes = [min(of_one) for of_one in hits if of_one]
        allowed = [*causes, *earlier]
        if len(runs) - 1 > len(allowed):
            self.unexplained.append(self._told(task_id, attempt))
        self.again += [Again(task_id, cause) for cause in allowed[: len(runs) - 1]]
        for one, other in pairwise(runs):
            over = one.end or one.last_sign
            stopped = self._was_stopped(one) or self._was_stopped(other)
            if other.start < over and not stopped and not earlier:
                self.overlapping.append(self._told(task_id, attempt))

    def _hits(self, run: Run, *, publishes: bool = False) -> list[str]:
        """What hit a run before the server knew of its end."""
        settled = self._settled(run)
        return [
            loss.kind
            for loss in self.losses
            if loss.end >= run.start - self.settle_seconds
            and loss.start <= settled
            and (publishes or loss.kind not in AWAY)
            and loss.is_of(run)
        ]

    def _settled(self, run: Run) -> float:
        """By when the server must have known of its end, if there was one."""
        by = (run.end or run.last_sign) + self.settle_seconds
        for loss in sorted(self.losses, key=lambda loss: loss.start):
            away = loss.kind in AWAY or (loss.kind, loss.node) == (
                NODE_FROZEN,
                run.node,
            )
            if away and loss.start <= by <= loss.end + RECOVERY_SECONDS:
                by = loss.end + RECOVERY_SECONDS
        return by

    def _was_stopped(self, run: Run) -> bool:
        over = run.end or run.last_sign
        return any(
            loss.start <= over and loss.end >= run.start - self.settle_seconds
            for loss in self.losses
            if (loss.kind, loss.node) == (NODE_FROZEN, run.node)
        )

    def _told(self, task_id: str, attempt: int) -> str:
        runs = self.by_attempt[task_id, attempt]
        told = [
            f"{run.node}/{run.pid} {run.start:.2f}-{run.end or 0:.2f}" for run in runs
        ]
        return f"{task_id} attempt {attempt}: {'; '.join(told)}"
