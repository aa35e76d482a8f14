"""The replay of many letters, a step at a time.

A request replays for a few seconds and says where it came to; the next one goes on from
there. What has become of the letters is asked of their rows, so that nothing is lost
with a web process, and a closed page pauses the run. The rest of the run, which letters
and how fast, travels in a signed piece of the URL.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core import signing
from django.db.models import Max, Q, QuerySet
from django.http import QueryDict
from django.utils import timezone

from unstuck import operations
from unstuck.dashboard.filters import Chosen
from unstuck.dashboard.paging import Count, count
from unstuck.models import DeadLetter
from unstuck.operations import ReplayReport
from unstuck.selection import letters

SALT = "unstuck.dashboard.redrive"
STEP_SECONDS = 4.0
CANARY_SECONDS = 4.0
MOST_IN_A_STEP = 100
STOP_AFTER_DEATHS = 3
SLOWEST, FASTEST = 0.25, 1000.0
"""Letters a second. A step of the slowest still sends one."""


class _StepIsOver(Exception):
    """The seconds of a step are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """One run: which letters, how, and how far it has come."""

    query: str
    """The letters, as in the URL that chose them."""
    upto: int
    """The newest row that was agreed to: what is buried later is not replayed."""
    since: str
    """When it began, from which filters by age reckon to its end."""
    why: str = ""
    rate: float = 0.0
    """Letters a second at most; 0 is as fast as it goes."""
    canary: bool = False
    canary_id: str = ""
    canary_seen: str = ""
    at: str = ""
    row: int = 0
    """Where it has come to, in the order of burial."""
    sent_at: float = 0.0
    trouble: str = ""
    """What the broker said when it did not take one."""

    @classmethod
    def begin(cls, chosen: Chosen, found: QuerySet[DeadLetter], **how: Any) -> Redrive:
        """A run over what is found now."""
        newest = found.aggregate(newest=Max("pk"))["newest"] or 0
        since = timezone.now().isoformat()
        return cls(query=chosen.as_query(), upto=newest, since=since, **how)

    @classmethod
    def from_text(cls, text: str) -> Redrive | None:
        """The run that a URL carries; ``None`` when it is not one of ours."""
        try:
            return cls(**signing.loads(text, salt=SALT))
        except (signing.BadSignature, TypeError):
            return None

    def as_text(self) -> str:
        """The run for a URL."""
        return signing.dumps(dataclasses.asdict(self), salt=SALT, compress=True)

    def step(
        self, app: Any, *, who: str, sees_payload: bool
    ) -> tuple[Redrive, ReplayReport]:
        """Replay for a few seconds; the run as it is then, and what was done."""
        rows = self._next_rows(sees_payload)
        self._wait_for_turn()
        report = self._replay([row.pk for row in rows], app, who)
        tried = [
            row for row in rows if row.pk in report.replayed or row.pk in report.skipped
        ]
        last = tried[-1] if tried else None
        first_id = next(iter(report.replayed.values()), "")
        went_ahead = self.is_canary_due and bool(first_id)
        moved = dataclasses.replace(
            self,
            at=last.buried_at.isoformat() if last else self.at,
            row=last.pk if last else self.row,
            sent_at=time.time(),
            trouble="" if report.canary == "died" else report.stopped,
            canary_id=first_id if went_ahead else self.canary_id,
            canary_seen=report.canary if went_ahead else self.canary_seen,
        )
        return moved, report

    @property
    def is_canary_due(self) -> bool:
        """Whether one letter is still to go ahead."""
        return self.canary and not self.canary_id

    def progress(self, *, sees_payload: bool) -> Progress:
        """What has become of its letters."""
        mine = self._letters(sees_payload)
        done = mine.filter(replayed_at__gte=self._began_at)
        again = letters().filter(pk__gt=self.upto)
        dead = again.filter(task_id__in=done.values("replayed_as")).count()
        open_ones = mine.filter(replayed_at__isnull=True)
        behind, ahead = (
            open_ones.exclude(self._after()),
            open_ones.filter(self._after()),
        )
        died = self.canary_seen == "died" or bool(
            self.canary_id and again.filter(task_id=self.canary_id).exists()
        )
        return Progress(
            done=count(done),
            skipped=count(behind) if self.row else Count(0),
            left=count(ahead),
            dead=dead,
            canary_died=died,
        )

    @property
    def _began_at(self) -> datetime:
        return datetime.fromisoformat(self.since)

    def _letters(self, sees_payload: bool) -> QuerySet[DeadLetter]:
        chosen = Chosen.of(QueryDict(self.query), sees_payload=sees_payload)
        found = chosen.select_in_any_state(
            sees_payload=sees_payload, now=self._began_at
        )
        return found.filter(pk__lte=self.upto)

    def _after(self) -> Q:
        if not self.row:
            return Q(pk__gt=0)
        at = datetime.fromisoformat(self.at)
        return Q(buried_at__gt=at) | Q(buried_at=at, pk__gt=self.row)

    def _next_rows(self, sees_payload: bool) -> Sequence[DeadLetter]:
        waiting = self._letters(sees_payload).filter(
            self._after(), replayed_at__isnull=True
        )
        ordered = waiting.only("pk", "buried_at").order_by("buried_at", "pk")
        return list(ordered[: 1 if self.is_canary_due else self._most()])

    def _most(self) -> int:
        if not self.rate:
            return MOST_IN_A_STEP
        return max(1, min(MOST_IN_A_STEP, int(self.rate * STEP_SECONDS)))

    def _wait_for_turn(self) -> None:
        """Keep the rate between two steps, too."""
        if self.rate and self.sent_at:
            due = self.sent_at + 1 / self.rate
            time.sleep(min(max(0.0, due - time.time()), STEP_SECONDS))

    def _replay(self, rows: Sequence[int], app: Any, who: str) -> ReplayReport:
        until = time.monotonic() + STEP_SECONDS + CANARY_SECONDS
        last = ReplayReport(total=len(rows))

        def note(report: ReplayReport) -> None:
            nonlocal last
            last = report
            if time.monotonic() > until:
                raise _StepIsOver

        try:
            return operations.replay_many(
                app,
                letters().filter(pk__in=rows),
                who=who,
                why=self.why,
                rate=self.rate or None,
                canary=self.is_canary_due,
                canary_seconds=CANARY_SECONDS,
                on_progress=note,
            )
        except _StepIsOver:
            return last


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come."""

    done: Count
    skipped: Count
    """Those that could not be replayed; the messages of each step say why."""
    left: Count
    dead: int
    """How many of the replays are dead letters again."""
    canary_died: bool

    @property
    def is_stopped(self) -> bool:
        """Whether it goes no further, since they die again."""
        return self.canary_died or self.dead >= STOP_AFTER_DEATHS

    @property
    def is_over(self) -> bool:
        """Whether none is left to try."""
        return not self.left.number


def rate_of(text: str) -> float | None:
    """The rate somebody typed: 0 for none, ``None`` for one that cannot be."""
    if not text.strip():
        return 0.0
    try:
        rate = float(text)
    except ValueError:
        return None
    return rate if SLOWEST <= rate <= FASTEST else None


def skips(report: ReplayReport, most: int = 5) -> Mapping[int, str]:
    """Some of those that were left alone, and why."""
    return dict(list(report.skipped.items())[:most])
