"""What waits for its time, wherever that can be asked: the broker, nodes, locks, the outbox."""

from __future__ import annotations

import difflib
import heapq
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from unstuck import conf, operations_locks, project, queues, remote
from unstuck.core import broker
from unstuck.core.broker import LastingChannel
from unstuck.core.errors import BrokerUnreachable, LocksUnreachable
from unstuck.core.planned import Planned, Where, Why
from unstuck.letters.message import StoredMessage
from unstuck.letters.queue import asking
from unstuck.letters.shown import shown_arguments
from unstuck.models import OutboxMessage, TaskRun
from unstuck.operations import broker_errors
from unstuck.outbox.publication import Publication
from unstuck.remote import Untold
from unstuck.worker import notes
from unstuck.worker.remote import PLANNED_COMMAND

MOST_LOOKED_AT = 500
"""Messages on the broker, of one node, and rows of the outbox: those that are due first.
Where all are asked for, those that are shown are enough."""

MOST_CHARACTERS = 16_000_000
LOOK_SECONDS = 3.0
"""All messages on the broker together."""

MOST_SHOWN = 50
MOST_RUNS = 1_000
FAR = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What was asked of the broker, the nodes and what keeps the locks."""

    rows: Sequence[Planned] = ()
    total: int = 0
    """How many there are, with those that were not looked at."""

    cut: Mapping[str, int] = field(default_factory=dict)
    """The queues and nodes of which only some were looked at, and of how many."""

    counted: int | None = None
    """How many wait in delay queues that nobody can look into."""

    untold: Sequence[Untold] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of them are asked for."""

    task: str = ""
    queue: str = ""
    why: str = ""

    @property
    def most_looked_at(self) -> int:
        """How many of each place: those that are due first."""
        return MOST_SHOWN if self == ALL else MOST_LOOKED_AT

    def lacks(self, looked_at: int, total: int) -> bool:
        """Whether there may be some among those that were not looked at."""
        return looked_at < (min(total, MOST_SHOWN) if self == ALL else total)

    def fits(self, one: Planned) -> bool:
        """Whether it is one of them; a task by a part of its name."""
        return (
            self.task in one.task_name
            and self.queue in ("", one.queue)
            and self.why in ("", one.why)
        )


ALL = Wanted()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What ended the run before."""

    exception_type: str
    cause: str


def live(
    app: Any,
    expected: Collection[str],
    wanted: Wanted = ALL,
    *,
    arguments: bool = False,
) -> Live:
    """Ask everything that is no database of ours; with redacted arguments, or without.

    What is not ``wanted`` may be in the answer as well.

    ``expected``: the nodes that are expected to answer. Raises nothing but what is wrong
    with the project: what could not be asked is in the answer.
    """
    # Nodes take their time, and the others are asked meanwhile.
    with ThreadPoolExecutor(1) as beside:
        answers = beside.submit(_on_nodes, app, expected, wanted, arguments)
        try:
            for_locks = _for_locks()
        except LocksUnreachable:
            for_locks = Live(untold=[Untold("locks")])
        try:
            on_broker, on_nodes = _on_broker(app, wanted, arguments), answers.result()
        except BrokerUnreachable:
            on_broker, on_nodes = Live(untold=[Untold("broker")]), Live()
    return _together([on_broker, on_nodes, for_locks])


def in_outbox(app: Any, wanted: Wanted = ALL, *, arguments: bool = False) -> Live:
    """What was written with a transaction and is not sent yet. Asks the database."""
    found = OutboxMessage.objects.using(conf.current().database)
    number = found.count()
    rows = [_of_row(app, row, arguments) for row in found[: wanted.most_looked_at]]
    cut = {Where.OUTBOX.value: number} if wanted.lacks(len(rows), number) else {}
    return Live(rows=rows, total=number, cut=cut)


def failures(rows: Iterable[Planned]) -> dict[str, Failure]:
    """Of those that are tried again, what ended the run before. Asks the database."""
    attempts = {row.task_id: row.attempt for row in rows if row.attempt > 1}
    runs = TaskRun.objects.using(conf.current().database).filter(task_id__in=attempts)
    columns = ("task_id", "attempt", "exception_type", "cause")
    return {
        task_id: Failure(exception_type=exception_type, cause=cause)
        for task_id, attempt, exception_type, cause in runs.order_by(
            "ended_at"
        ).values_list(*columns)[:MOST_RUNS]
        if attempt == attempts[task_id] - 1
    }


def those(found: Sequence[Live], wanted: Wanted) -> Live:
    """Those that are asked for, the next first and those that nobody can tell last.

    How many there are in all nobody knows but where all are asked for: those that fit
    among those that were looked at.
    """
    one = _together(found)
    rows = sorted(filter(wanted.fits, one.rows), key=lambda row: row.due_at or FAR)
    total = max(one.total, len(rows)) if wanted == ALL else len(rows)
    return replace(one, rows=rows, total=total)


def attempts_of(app: Any, task_name: str) -> int | None:
    """How often a task runs at most, as it is known here; ``None`` without a limit."""
    task = project.task_of(app, task_name)
    retries = getattr(task, "max_retries", None)
    return None if retries is None else int(retries) + 1


def why(text: str) -> Why | None:
    """The reason of this name."""
    return Why(text) if text in tuple(Why) else None


def nearest_why(text: str) -> str:
    """The reason that somebody may have meant, or nothing."""
    near = difflib.get_close_matches(text, [one.value for one in Why], n=1)
    return near[0] if near else ""


def _together(found: Iterable[Live]) -> Live:
    found = list(found)
    counted = [one.counted for one in found if one.counted is not None]
    return Live(
        rows=[row for one in found for row in one.rows],
        total=sum(one.total for one in found),
        cut={name: total for one in found for name, total in one.cut.items()},
        counted=sum(counted) if counted else None,
        untold=[each for one in found for each in one.untold],
    )


def _on_broker(app: Any, wanted: Wanted, arguments: bool) -> Live:
    with broker_errors(app), asking(app) as connection:
        channel = broker.lasting(connection.default_channel)
        if channel is None:
            return _counted(connection)
        totals = channel.count_delayed(channel.queues_with_delayed())
        found = list(_due_first(channel, totals, _Budget(wanted.most_looked_at)))
        read = (_of_message(app, channel, one, arguments) for one in found)
        rows = [one for one in read if one is not None]
        seen, total = Counter(one.queue for one in found), sum(totals.values())
        cut = {name: of for name, of in totals.items() if seen[name] < of}
        lacks = wanted.lacks(len(found), total)
        return Live(rows=rows, total=total, cut=cut if lacks else {})


@dataclass(slots=True)
class _Budget:
    """How much may be read on the broker."""

    most: int
    """Messages."""

    until: float = field(default_factory=lambda: time.monotonic() + LOOK_SECONDS)
    messages: int = 0
    characters: int = 0

    @property
    def is_spent(self) -> bool:
        return (
            self.messages >= self.most
            or self.characters >= MOST_CHARACTERS
            or time.monotonic() > self.until
        )


def _due_first(
    channel: LastingChannel, queues: Iterable[str], budget: _Budget
) -> Iterator[Any]:
    """The messages of all queues that are due first."""

    def of(queue: str) -> Iterator[Any]:
        if budget.is_spent:
            return
        for one in channel.first_delayed(queue, budget.most):
            budget.characters += len(one.content)
            yield one
            if budget.is_spent:
                return

    for one in heapq.merge(*map(of, queues), key=lambda one: one.due_at):
        budget.messages += 1
        yield one
        if budget.messages >= budget.most:
            return


def _counted(connection: Any) -> Live:
    """RabbitMQ tells how many wait in its delay queues, and no broker which."""
    if connection.transport.driver_type == "amqp":
        return Live(counted=queues.count_delayed(connection))
    return Live()


def _of_message(
    app: Any, channel: Any, delayed: Any, arguments: bool
) -> Planned | None:
    stored = StoredMessage.in_envelope(channel, delayed.content, delayed.queue)
    if stored is None:
        return None
    delivery = notes.delivery_from(stored.headers, delayed.queue)
    shown = _shown(app, stored, delivery.task_name) if arguments else None
    due_at = datetime.fromtimestamp(delayed.due_at, UTC)
    return Planned.of(delivery, Where.BROKER, due_at=due_at, arguments=shown)


def _on_nodes(
    app: Any, expected: Collection[str], wanted: Wanted, arguments: bool
) -> Live:
    question = {"most": wanted.most_looked_at, "arguments": arguments}
    answers, silent = remote.ask_all(app, PLANNED_COMMAND, question, expected=expected)
    rows: list[Planned] = []
    all_of_them, cut = 0, {}
    untold = [Untold("node", name) for name in silent]
    for node, answer in sorted(answers.items()):
        try:
            told = [Planned.from_wire({**row, "node": node}) for row in answer["rows"]]
            total = int(answer["total"])
        except (KeyError, TypeError, ValueError):
            untold.append(Untold("node", node))  # Of a version with other words.
            continue
        rows += told
        all_of_them += total
        if wanted.lacks(len(told), total):
            cut[node] = total
    return Live(rows=rows, total=all_of_them, cut=cut, untold=untold)


def _for_locks() -> Live:
    rows = [
        Planned(
            task_id=owner.task_id,
            task_name=owner.task_name,
            queue="",
            where=Where.LOCK,
            why=Why.LOCK,
            node=owner.node,
            lock=held.name,
        )
        for held in operations_locks.held_locks()
        for owner in held.waiting
        if owner.task_id
    ]
    return Live(rows=rows, total=len(rows))


def _of_row(app: Any, row: OutboxMessage, arguments: bool) -> Planned:
    shown = None
    if arguments:
        # Another version may have written it in other words.
        with suppress(ValueError, KeyError, TypeError):
            publication = Publication.of_row(row)
            shown = _shown(app, _stored(publication), row.task_name)
    return Planned(
        task_id=row.task_id,
        task_name=row.task_name,
        queue=row.queue,
        where=Where.OUTBOX,
        why=Why.OUTBOX,
        due_at=row.due_at,
        arguments=shown,
    )


def _shown(app: Any, message: StoredMessage, task_name: str) -> Any:
    """Nothing of a task that is not known here: it names what is secret."""
    if project.task_of(app, task_name) is None:
        return None
    return shown_arguments(app, message, task_name)


def _stored(publication: Publication) -> StoredMessage:
    options = publication.options
    return StoredMessage(
        body=publication.body,
        content_type=options.get("content_type") or "",
        content_encoding=options.get("content_encoding") or "",
        headers=options["headers"],
    )
