"""Where a task is: asked of the nodes, the broker, the locks, the results and the archive.

What could not be asked is said: that nobody knows a task means something only when all
have answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from celery import states
from celery.backends.base import DisabledBackend

from unstuck import conf, operations_locks, queues, remote
from unstuck.core import broker
from unstuck.core.errors import BrokerUnreachable, LocksUnreachable
from unstuck.letters.message import StoredMessage
from unstuck.letters.queue import asking, name_for
from unstuck.models import DeadLetter, OutboxMessage, TaskRun
from unstuck.operations import broker_errors
from unstuck.remote import Untold
from unstuck.worker.remote import WHERE_COMMAND

MOST_LOOKED_AT = 10_000
"""Messages of one queue."""

LOOK_SECONDS = 3.0
"""All queues together."""

MOST_ROWS = 20
MOST_QUEUES = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task is, or what became of it, and what is known of that."""

    state: str
    """``running``, ``reserved``, ``queued``, ``scheduled``, ``lock``, ``holds``, ``outbox``,
    ``revoked``, ``done``, ``dead``, ``replayed`` or ``ran``."""

    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """All places of a task, the liveliest first, and what could not be asked."""

    places: Sequence[Place] = ()
    untold: Sequence[Untold] = ()

    def __add__(self, other: Whereabouts) -> Whereabouts:
        return Whereabouts([*self.places, *other.places], [*self.untold, *other.untold])


def now(app: Any, task_id: str, *, expected: Collection[str]) -> Whereabouts:
    """What nodes, broker, locks and results say now. No database of ours is asked.

    ``expected``: the nodes that are expected to answer.
    """
    try:
        asked = _on_nodes(app, task_id, expected)
        busy = {place.facts["node"] for place in asked.places if "node" in place.facts}
        asked += _on_broker(app, task_id, busy)
    except BrokerUnreachable:
        asked = Whereabouts(untold=[Untold("broker")])
    return asked + _by_locks(task_id) + _by_result(app, task_id)


def archived(task_id: str, *, letters: bool = True, runs: bool = True) -> Whereabouts:
    """What the database has written down; raises what the database raises."""
    places: list[Place] = []
    if runs:
        places += _in_outbox(task_id)
    if letters:
        places += _letters(task_id)
    if runs:
        places += _runs(task_id)
    return Whereabouts(places)


def _on_nodes(app: Any, task_id: str, expected: Collection[str]) -> Whereabouts:
    question = {"task_id": task_id}
    answers, silent = remote.ask_all(app, WHERE_COMMAND, question, expected=expected)
    untold = [Untold("node", name) for name in silent]
    places = []
    for node, answer in sorted(answers.items()):
        if not isinstance(answer, Mapping) or "state" not in answer:
            untold.append(Untold("node", node))
            continue
        if answer["state"]:
            places.append(_on_node(node, answer))
        if answer.get("revoked"):
            places.append(Place("revoked", {"by": node}))
    return Whereabouts(places, untold)


def _on_node(node: str, answer: Mapping[str, Any]) -> Place:
    facts: dict[str, Any] = {"node": node}
    for name in ("task_name", "queue", "attempt", "pid"):
        if answer.get(name):
            facts[name] = answer[name]
    for name in ("started", "due"):
        if answer.get(name):
            facts[name] = datetime.fromtimestamp(answer[name], UTC)
    if answer["state"] == "running" and "started" in facts:
        facts["seconds"] = max(0.0, time.time() - answer["started"])
    return Place(answer["state"], facts)


def _on_broker(app: Any, task_id: str, busy: Collection[str]) -> Whereabouts:
    with broker_errors(app), asking(app) as connection:
        names = _queues(app)
        channel = broker.lasting(connection.default_channel)
        if channel is not None:
            return _in_streams(channel, names, task_id, busy)
        driver = connection.transport.driver_type
        if driver == "redis":
            return _in_lists(connection.default_channel, names, task_id)
        counted = queues.count_delayed(connection) if driver == "amqp" else None
        return Whereabouts(untold=[Untold("kind", driver, counted)])


def _queues(app: Any) -> list[str]:
    """Those that this project consumes, as far as it is known here."""
    return [name for name in queues.names_of(app) if name != name_for(app)]


def _in_streams(
    channel: Any, names: Sequence[str], task_id: str, busy: Collection[str]
) -> Whereabouts:
    delayed = channel.queues_with_delayed()
    until = time.monotonic() + LOOK_SECONDS
    text = json.dumps(task_id)
    places: list[Place] = []
    untold: list[Untold] = []
    known = list(dict.fromkeys([*names, *delayed]))
    if len(known) > MOST_QUEUES:
        untold.append(Untold("queues", number=len(known) - MOST_QUEUES))
    for name in known[:MOST_QUEUES]:
        found = channel.search(name, text, MOST_LOOKED_AT, until)
        for one in found.found:
            stored = _of_task(channel, one.content, name, task_id)
            if stored is not None and one.node not in busy:
                place = {"place": one.place} if one.place else {"node": one.node}
                state = "queued" if one.place else "reserved"
                places.append(Place(state, {**_facts(stored), **place}))
        if not found.is_whole:
            untold.append(Untold("queue", name, found.looked_at))
    for name in delayed[:MOST_QUEUES]:
        waiting, is_all = channel.delayed_with(name, text, until)
        for one in waiting:
            stored = _of_task(channel, one.content, name, task_id)
            if stored is not None:
                due = datetime.fromtimestamp(one.due_at, UTC)
                places.append(Place("scheduled", {**_facts(stored), "due": due}))
        if not is_all:
            untold.append(Untold("queue", name))
    return Whereabouts(places, untold)


def _in_lists(channel: Any, names: Sequence[str], task_id: str) -> Whereabouts:
    """kombu's own lists in Redis, of each queue the next to be served."""
    until = time.monotonic() + LOOK_SECONDS
    wanted = json.dumps(task_id).encode()
    places: list[Place] = []
    untold: list[Untold] = []
    for name in names:
        looked_at, is_whole = 0, True
        for content in queues.contents(channel, name):
            if looked_at >= MOST_LOOKED_AT or time.monotonic() > until:
                is_whole = False
                break
            looked_at += 1
            if wanted in content:
                said = content.decode(errors="replace")
                stored = _of_task(channel, said, name, task_id)
                if stored is not None:
                    facts = {**_facts(stored), "place": looked_at}
                    places.append(Place("queued", facts))
        if not is_whole:
            untold.append(Untold("queue", name, looked_at))
    return Whereabouts(places, untold)


def _of_task(
    channel: Any, content: str, queue: str, task_id: str
) -> StoredMessage | None:
    """The message, if it is one of this task: its id stands in others as well."""
    stored = StoredMessage.in_envelope(channel, content, queue)
    return stored if stored and stored.headers.get("id") == task_id else None


def _facts(stored: StoredMessage) -> dict[str, Any]:
    retries = stored.headers.get("retries")
    return {
        "task_name": str(stored.headers.get("task") or ""),
        "queue": stored.queue,
        "attempt": 1 + (retries if isinstance(retries, int) else 0),
    }


def _by_locks(task_id: str) -> Whereabouts:
    try:
        held = operations_locks.held_locks()
    except LocksUnreachable:
        return Whereabouts(untold=[Untold("locks")])
    places = [
        Place("lock", {"lock": one.name, "node": one.owner.node, "pid": one.owner.pid})
        for one in held
        if any(owner.task_id == task_id for owner in one.waiting)
    ]
    places += [
        Place("holds", {"lock": one.name})
        for one in held
        if one.owner.task_id == task_id
    ]
    return Whereabouts(places)


def _by_result(app: Any, task_id: str) -> Whereabouts:
    if isinstance(app.backend, DisabledBackend):
        return Whereabouts(untold=[Untold("no_results")])
    try:
        meta = app.backend.get_task_meta(task_id)
        state = str(meta["status"])
    except Exception:
        # Result backends have no error in common.
        return Whereabouts(untold=[Untold("results")])
    if state == states.PENDING:  # Which is also what nobody has heard of.
        return Whereabouts()
    facts = {"result": state}
    if meta.get("date_done"):
        facts["at"] = str(meta["date_done"])
    return Whereabouts(
        [Place("done" if state in states.READY_STATES else "result", facts)]
    )


def _in_outbox(task_id: str) -> Iterator[Place]:
    rows = OutboxMessage.objects.using(conf.current().database).filter(task_id=task_id)
    columns = ("task_name", "queue", "written_at", "attempts")
    for row in rows.values(*columns)[:MOST_ROWS]:
        yield Place("outbox", row)


def _letters(task_id: str) -> Iterator[Place]:
    rows = DeadLetter.objects.using(conf.current().database).filter(task_id=task_id)
    columns = ("pk", "task_name", "queue", "reason", "buried_at", "replayed_as")
    for row in rows.order_by("-buried_at").values(*columns)[:MOST_ROWS]:
        state = "replayed" if row["replayed_as"] else "dead"
        yield Place(state, row)


def _runs(task_id: str) -> Iterator[Place]:
    rows = TaskRun.objects.using(conf.current().database).filter(task_id=task_id)
    columns = ("task_name", "queue", "attempt", "ending", "node", "ended_at")
    for row in rows.order_by("-ended_at").values(*columns)[:MOST_ROWS]:
        yield Place("ran", row)
