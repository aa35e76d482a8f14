"""What an operator can do to a task that waits for its time; each deed is in the audit.

The command line and the dashboard call these functions and no others.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from celery.app.task import Context

from unstuck import audit, project, remote
from unstuck.audit import Deed, InDoubt
from unstuck.core import broker
from unstuck.core.errors import BrokerUnreachable, ControlError
from unstuck.fields import Fields
from unstuck.letters.message import StoredMessage
from unstuck.letters.queue import asking
from unstuck.letters.replay import body_of
from unstuck.locks import backends
from unstuck.operations import broker_errors
from unstuck.worker import unique

logger = logging.getLogger(__name__)

RUN_NOW, DROP = "run task now", "drop task"

LOOK_SECONDS = 5.0
"""So long a server is searched for one message, however many there are."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """How a task was dropped."""

    queue: str
    """Of the message that was taken away on the broker; empty if none was."""

    told: tuple[str, ...] = ()
    """The nodes that drop it when it comes, or when its time has come there."""


def run_now(
    app: Any, task_id: str, *, who: str, why: str, due_ms: int | None = None
) -> str:
    """Have a task that waits on the broker run as soon as a node is free; its queue.

    One step on the server, and nothing if it is not there any more. ``due_ms``: only if it
    is still due then. Raises ``ControlError`` without a reason, and where the message cannot
    be reached, and ``BrokerUnreachable``; then nothing has changed. Raises ``InDoubt`` when
    nobody can say whether it was done, and the audit entry says that.
    """
    _demand_reason(task_id, why, "run")
    details = {"task_id": task_id}
    with audit.recorded(RUN_NOW, task_id, who=who, why=why, details=details) as deed:
        away = _Away(deed)
        taken = next(_taken(app, task_id, due_ms, _for_now, away), None)
        if taken is None:
            raise ControlError(_not_there(app, task_id))
    return taken.queue


def drop_task(
    app: Any,
    task_id: str,
    *,
    who: str,
    why: str,
    due_ms: int | None = None,
    seconds: float | None = None,
) -> Dropped:
    """Have a task that waits for its time not run: it ends as revoked.

    Where the broker is ours its message is taken away, as one step; all of them, where the id
    waits more than once. Elsewhere, and where it is not there, the nodes are told to revoke it: they drop it when they meet it, and forget
    that when they are started anew. What runs already goes on.

    Raises ``ControlError`` without a reason, and when nobody did anything; and
    ``BrokerUnreachable``. Then nothing has changed. ``InDoubt`` as ``run_now``.
    """
    _demand_reason(task_id, why, "drop")
    details = {"task_id": task_id}
    with audit.recorded(DROP, task_id, who=who, why=why, details=details) as deed:
        away = _Away(deed)
        try:
            for taken in _taken(app, task_id, due_ms, lambda content: None, away):
                if len(away.messages) == 1:  # Its chord counts it once.
                    _end_as_revoked(app, task_id, taken)
        except BrokerUnreachable as error:
            if away.messages:
                raise _second_in_doubt(task_id, str(error)) from error
            raise
        if away.messages:
            return Dropped(away.messages[0].queue)
        answers = remote.broadcast(
            app, "revoke", {"task_id": task_id}, seconds=seconds, begins=deed.begins
        )
        deed.ends()
        told = sorted(node for node in answers if remote.agreed(answers[node]))
        if not told:
            raise ControlError(
                f"{task_id} does not wait on the broker where it could be taken away, and "
                f"no node answered that could be told to drop it."
            )
        deed.details["told"] = told
        return Dropped("", tuple(told))


@dataclass(slots=True)
class _Away:
    """The messages that a deed has taken away."""

    deed: Deed
    messages: list[StoredMessage] = field(default_factory=list)

    def note(self, message: StoredMessage) -> None:
        """This one was taken away."""
        self.messages.append(message)
        self.deed.is_done = True
        self.deed.details = {**_facts(self.messages[0]), **self.deed.details}
        if len(self.messages) > 1:
            self.deed.details["messages"] = len(self.messages)


def _taken(
    app: Any,
    task_id: str,
    due_ms: int | None,
    instead_of: Callable[[str], str | None],
    away: _Away,
) -> Iterator[StoredMessage]:
    """Take messages that wait for their time away, one by one, and note each."""
    waits_otherwise = False
    with broker_errors(app), asking(app) as connection:
        channel = broker.lasting(connection.default_channel)
        if channel is None:
            return
        for delayed, stored in _delayed_of(channel, task_id, away):
            if due_ms not in (None, round(delayed.due_at * 1000)):
                waits_otherwise = True
                continue
            with away.deed.in_doubt_but_for(channel.ResponseError):
                if _is_taken(channel, task_id, delayed, instead_of(delayed.content)):
                    away.note(stored)
            if away.messages and away.messages[-1] is stored:
                yield stored
    if waits_otherwise and not away.messages:
        raise ControlError(
            f"{task_id} waits for another time by now. Look again before you act."
        )


def _is_taken(channel: Any, task_id: str, delayed: Any, instead: str | None) -> bool:
    try:
        return bool(channel.take_delayed(delayed, instead))
    except channel.connection_errors as error:
        raise InDoubt(
            f"The broker's answer was lost, so nobody can say whether it was done "
            f"({error}). `manage.py unstuck where {task_id}` says where the task is."
        ) from error


def _second_in_doubt(task_id: str, why: str) -> InDoubt:
    return InDoubt(
        f"{task_id} was taken away, and it may wait a second time: {why} "
        f"`manage.py unstuck where {task_id}` says where the task is."
    )


def _facts(message: StoredMessage) -> dict[str, Any]:
    headers = message.headers
    facts = {name: str(headers.get(name)) for name in ("task", "eta")}
    return {**facts, "queue": message.queue}


def _delayed_of(
    channel: Any, task_id: str, away: _Away
) -> Iterator[tuple[Any, StoredMessage]]:
    until = time.monotonic() + LOOK_SECONDS
    # As JSON has it: an id may be any text.
    text = json.dumps(task_id)
    for queue in channel.queues_with_delayed():
        found, is_all = channel.delayed_with(queue, text, until)
        for delayed in found:
            stored = StoredMessage.in_envelope(channel, delayed.content, queue)
            if stored is not None and stored.headers.get("id") == task_id:
                yield delayed, stored
        if not is_all and away.messages:
            why = f"not all could be looked through within {LOOK_SECONDS:g} s."
            raise _second_in_doubt(task_id, why)
        if not is_all:
            raise ControlError(
                f"{task_id} was not found within {LOOK_SECONDS:g} s: too many messages wait "
                f"for their time. Nothing was done."
            )


def _for_now(content: str) -> str:
    """The same message without its time: a node would wait for that as well."""
    message = json.loads(content)
    message["headers"]["eta"] = None
    return json.dumps(message)


def _end_as_revoked(app: Any, task_id: str, message: StoredMessage) -> None:
    """What a node does with a revoked task: whoever waits for it is told.

    That is who waits for its result, its chord, and calls that a unique task keeps out.
    """
    try:
        args, kwargs, embed = body_of(app, message) or ([], {}, {})
        task = project.task_of(app, str(message.headers.get("task")))
        request = Context(message.headers, args=args, kwargs=kwargs, **embed)
        # What Celery imports only now, and it may not be there.
        backend = app.backend if task is None else task.backend
        backend.mark_as_revoked(task_id, "dropped", request=request)
        lock = getattr(task, "lock_options_if_good", None)
        if lock is not None and lock.is_unique:
            backends.current().release(unique.claim_of(lock, args, kwargs, task_id))
    except Exception:
        # Result backends have no error in common. It is gone all the same.
        logger.warning(
            "Task %(task)s is dropped, and not all could be told of it",
            Fields(task_id=task_id, task_name=message.headers.get("task")),
            exc_info=True,
        )


def _not_there(app: Any, task_id: str) -> str:
    with asking(app) as connection:
        can_be = broker.lasting(connection.default_channel) is not None
    if can_be:
        return (
            f"{task_id} does not wait for its time on the broker (any more). "
            f"`manage.py unstuck where {task_id}` says where it is."
        )
    return (
        f"On this broker nobody can reach a message that waits for its time, so {task_id} "
        f"cannot be brought forward. It can be dropped, and sent anew."
    )


def _demand_reason(task_id: str, why: str, verb: str) -> None:
    if not why.strip():
        raise ControlError(
            f"To {verb} the task {task_id} needs a reason, because others will ask why."
        )
