"""What an operator can do to dead letters; every deed leaves an audit entry.

The command line, the admin and the dashboard call these functions and no others.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from celery.backends.base import DisabledBackend
from celery.result import AsyncResult
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone
from kombu.exceptions import KombuError

from unstuck import audit, conf
from unstuck.core.errors import BrokerUnreachable, PurgeError, ReplayError
from unstuck.letters.redact import redacted_args, redacted_kwargs
from unstuck.letters.replay import replay
from unstuck.models import DeadLetter
from unstuck.selection import letters

AUDITED_IDS = 100
"""A purge of more letters names this many of them in its audit entry."""

CHUNK = 500
"""Rows in one statement; SQLite takes no more than a thousand parameters."""

LOOK_SECONDS = 1.0
"""How often a replay of many looks at what has become of those already sent."""

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a replay of many letters has done so far."""

    total: int
    """The letters that were asked for."""
    replayed: Mapping[int, str] = field(default_factory=dict)
    """The new task id for each row."""
    skipped: Mapping[int, str] = field(default_factory=dict)
    """Why a row was left alone."""
    died: int = 0
    """How many of the replays are dead letters again."""
    canary: str = ""
    """What was seen of the canary: ``ended``, ``died`` or ``nothing``."""
    stopped: str = ""
    """Why the rest was left alone; empty when nothing was."""

    @property
    def left(self) -> int:
        """How many letters were not tried."""
        return self.total - len(self.replayed) - len(self.skipped)


def replay_letter(
    app: Any,
    letter: DeadLetter,
    *,
    who: str,
    why: str = "",
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    again: bool = False,
) -> str:
    """Put a letter's message back; returns the new task id.

    A letter is replayed once, however many operators try at the same time, unless
    ``again`` is said. ``args`` and ``kwargs`` replace those of the message.

    Raises ``ReplayError`` when the letter was replayed before, is gone, or cannot be
    replayed as asked, and ``BrokerUnreachable`` when the broker does not take it; then
    nothing has changed.
    """
    now, task_id = timezone.now(), str(uuid.uuid4())
    with transaction.atomic(using=conf.current().database):
        # The claim keeps the row until the end of the transaction: a second operator
        # waits here, and then finds it replayed.
        _claim(letter, now, again)
        letters().filter(pk=letter.pk).update(replayed_as=task_id)
        details = {
            **_facts(letter),
            "replayed_as": task_id,
            "again": again,
            **_edits(app, letter, args, kwargs),
        }
        target = letter.task_id or str(letter.letter_id)
        audit.record("replay", target, who=who, why=why, details=details)
        # Last: what was sent stays sent, whatever the database says to all of this.
        message = letter.stored_message()
        with broker_errors(app):
            replay(app, message, task_id=task_id, args=args, kwargs=kwargs)
    letter.replayed_at, letter.replayed_as = now, task_id
    return task_id


def replay_many(
    app: Any,
    queryset: QuerySet[DeadLetter],
    *,
    who: str,
    why: str = "",
    rate: float | None = None,
    canary: bool = False,
    canary_seconds: float = 30,
    stop_after_deaths: int = 3,
    again: bool = False,
    on_progress: Callable[[ReplayReport], object] = lambda report: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> ReplayReport:
    """Replay the letters of a queryset, oldest first, at most ``rate`` a second.

    With ``canary`` one goes ahead: when it dies, nothing else is sent; the others
    follow when it has ended, or when ``canary_seconds`` are over. The run stops by
    itself once ``stop_after_deaths`` of its replays are dead letters again, and when
    the broker is away. Letters replayed before are skipped unless ``again`` is said.

    Letters that are buried while it runs are not replayed.
    """
    rows = list(queryset.order_by("buried_at", "pk").values_list("pk", flat=True))
    run = _Run(
        app=app, who=who, why=why, again=again, rows=rows, clock=clock, sleep=sleep
    )
    if canary:
        run.send_canary(canary_seconds)
        on_progress(run.report())
    interval = 1 / rate if rate else 0.0
    for _ in run.send_rest(interval, stop_after_deaths):
        on_progress(run.report())
    run.look()
    return run.report()


def purge(queryset: QuerySet[DeadLetter], *, who: str, why: str) -> int:
    """Delete letters for good; says how many those were.

    Raises ``PurgeError`` without a reason.
    """
    if not why.strip():
        raise PurgeError(
            "A purge needs a reason, because what is purged is gone for good."
        )
    with transaction.atomic(using=conf.current().database):
        found = list(queryset.order_by("pk").values_list("pk", "task_id", "reason"))
        rows = [row for row, _, _ in found]
        for start in range(0, len(rows), CHUNK):
            letters().filter(pk__in=rows[start : start + CHUNK]).delete()
        if found:
            details = {
                "letters": len(found),
                "reasons": dict(Counter(reason for _, _, reason in found)),
                "task_ids": [task_id for _, task_id, _ in found[:AUDITED_IDS]],
            }
            target = f"{len(found)} dead letters"
            audit.record("purge", target, who=who, why=why, details=details)
    return len(found)


@contextmanager
def broker_errors(app: Any) -> Iterator[None]:
    """Let what a broker raises, whichever it is, come out as ``BrokerUnreachable``."""
    try:
        connection = app.connection_for_write()
        known = (*connection.connection_errors, *connection.channel_errors)
    except (LookupError, ImportError, ValueError) as error:
        raise BrokerUnreachable(f"There is no such broker: {error}") from error
    try:
        yield
    except (KombuError, OSError, *known) as error:
        raise BrokerUnreachable(
            f"The broker at {connection.as_uri()} failed: "
            f"{str(error) or type(error).__name__}"
        ) from error


def _claim(letter: DeadLetter, now: datetime, again: bool) -> None:
    row = letters().filter(pk=letter.pk)
    free = row if again else row.filter(replayed_at__isnull=True)
    if free.update(replayed_at=now):
        return
    before = row.values_list("replayed_at", "replayed_as").first()
    if before is None:
        raise ReplayError(f"The dead letter {letter.pk} is gone: somebody purged it.")
    at, task_id = before
    raise ReplayError(
        f"The dead letter {letter.pk} was replayed at {at:%Y-%m-%d %H:%M:%S %Z} as "
        f"{task_id}. To replay it once more, say so (--again)."
    )


def _facts(letter: DeadLetter) -> dict[str, Any]:
    return {
        "row": letter.pk,
        "letter": str(letter.letter_id),
        "task": letter.task_name,
        "reason": letter.reason,
    }


def _edits(
    app: Any,
    letter: DeadLetter,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The arguments that were given anew, as they may be shown."""
    names = conf.current().redact
    edits: dict[str, Any] = {}
    if args is not None:
        task = app.tasks.get(letter.task_name)
        edits["args"] = redacted_args(args, task, names)
    if kwargs is not None:
        edits["kwargs"] = redacted_kwargs(kwargs, names)
    return edits


@dataclass(slots=True, kw_only=True)
class _Run:
    """One replay of many letters, as far as it has come."""

    app: Any
    who: str
    why: str
    again: bool
    rows: Sequence[int]
    clock: Callable[[], float]
    sleep: Callable[[float], object]

    replayed: dict[int, str] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    canary: str = ""
    stopped: str = ""
    newest_before: int = 0
    looked_at: float = 0.0

    def __post_init__(self) -> None:
        newest = letters().aggregate(newest=Max("pk"))["newest"]
        self.newest_before = newest or 0
        self.looked_at = self.clock()

    def report(self) -> ReplayReport:
        return ReplayReport(
            total=len(self.rows),
            replayed=self.replayed,
            skipped=self.skipped,
            died=len(self.dead),
            canary=self.canary,
            stopped=self.stopped,
        )

    def send_canary(self, seconds: float) -> None:
        task_id = next(filter(None, map(self._send, self._left())), None)
        if task_id is None:
            return
        self.canary = self._watch(task_id, self.clock() + seconds)
        if self.canary == "died":
            self.dead.add(task_id)
            self.stopped = "the canary died"

    def send_rest(self, interval: float, stop_after_deaths: int) -> Iterator[None]:
        due = self.clock()
        for row in self._left():
            self.sleep(max(0.0, due - self.clock()))
            due = max(due, self.clock()) + interval
            if self.clock() - self.looked_at >= LOOK_SECONDS:
                self.look()
            if len(self.dead) >= stop_after_deaths:
                self.stopped = f"{len(self.dead)} of the replays are dead letters again"
                return
            self._send(row)
            yield

    def look(self) -> None:
        """Count those of this run that are dead letters again."""
        self.looked_at = self.clock()
        since = letters().filter(pk__gt=self.newest_before)
        buried = set(since.values_list("task_id", flat=True))
        self.dead |= buried.intersection(self.replayed.values())

    def _left(self) -> Iterator[int]:
        for row in self.rows:
            if self.stopped:
                return
            if row not in self.replayed and row not in self.skipped:
                yield row

    def _send(self, row: int) -> str | None:
        letter = letters().filter(pk=row).first()
        try:
            if letter is None:
                raise ReplayError(f"The dead letter {row} is gone: somebody purged it.")
            task_id = replay_letter(
                self.app, letter, who=self.who, why=self.why, again=self.again
            )
        except ReplayError as error:
            self.skipped[row] = str(error)
            return None
        except BrokerUnreachable as error:
            self.stopped = str(error)
            return None
        self.replayed[row] = task_id
        return task_id

    def _watch(self, task_id: str, until: float) -> str:
        """What becomes of a replay: ``ended``, ``died``, or ``nothing`` was seen."""
        asks = not isinstance(self.app.backend, DisabledBackend)
        while True:
            if letters().filter(task_id=task_id).exists():
                return "died"
            if asks:
                match self._state(task_id):
                    case "SUCCESS":
                        return "ended"
                    case "FAILURE":
                        return "died"
                    case None:
                        asks = False
            if self.clock() >= until:
                return "nothing"
            self.sleep(POLL_SECONDS)

    def _state(self, task_id: str) -> str | None:
        try:
            state: str = AsyncResult(task_id, app=self.app).state
        except Exception:
            # Result backends have no error in common, and the letter tells as well.
            return None
        return state
