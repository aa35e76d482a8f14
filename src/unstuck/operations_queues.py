"""What an operator can do to queues; every deed leaves an audit entry.

The command line and the dashboard call these functions and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unstuck import audit, conf, remote
from unstuck.core.errors import ControlError
from unstuck.models import AuditEntry, Node
from unstuck.recorder.sound import short

PAUSE, RESUME = "pause queue", "resume queue"

COMMANDS = {PAUSE: "cancel_consumer", RESUME: "add_consumer"}


@dataclass(frozen=True, slots=True)
class Told:
    """What the nodes answered that were told about a queue."""

    done: tuple[str, ...]
    failed: Mapping[str, str]
    """Those that cannot, and why."""
    silent: tuple[str, ...]
    """Those that did not answer; they may do it later."""


def pause_queue(
    app: Any,
    name: str,
    *,
    who: str,
    why: str,
    seconds: float | None = None,
) -> Told:
    """Have the nodes that consume a queue stop that; what they have in hand goes on.

    They alone remember it: one that is started anew consumes the queue again.

    Raises ``ControlError`` without a reason, and when no node that answers consumes it;
    and ``BrokerUnreachable``. Then nothing has changed. Raises ``InDoubt`` when the broker
    is lost after nodes may have been told, and the audit entry says that.
    """
    _demand_reason(name, why, "pause")
    consumers = _consumers(app, name, seconds)
    if not consumers:
        raise ControlError(
            f"No worker that answered consumes the queue {name!r}, so there is nothing to "
            f"pause."
        )
    return _tell(app, PAUSE, name, consumers, who, why, seconds)


def resume_queue(
    app: Any,
    name: str,
    *,
    who: str,
    why: str,
    seconds: float | None = None,
) -> Told:
    """Have the nodes consume a queue again that did so before it was paused.

    Those are the ones that began with it and the ones of the last pause; no other node is
    made a consumer of it. Raises as ``pause_queue``.
    """
    _demand_reason(name, why, "resume")
    nodes = _former(name)
    if not nodes:
        raise ControlError(
            f"No node is known that consumed the queue {name!r}. Start a worker for it: "
            f"celery -A PROJECT worker -Q {name}"
        )
    return _tell(app, RESUME, name, nodes, who, why, seconds)


def last_pause(name: str) -> AuditEntry | None:
    """The pause of a queue that nobody has ended by a resume."""
    entries = AuditEntry.objects.using(conf.current().database)
    last = entries.filter(what__in=COMMANDS, target=short(name)).first()
    return last if last is not None and last.what == PAUSE else None


def _demand_reason(name: str, why: str, verb: str) -> None:
    if not why.strip():
        raise ControlError(
            f"To {verb} the queue {name!r} needs a reason, because others will ask why."
        )


def _consumers(app: Any, name: str, seconds: float | None) -> list[str]:
    """The nodes that say that they consume it now."""
    answers = remote.broadcast(app, "active_queues", {}, seconds=seconds)
    return sorted(
        node
        for node, queues in answers.items()
        if isinstance(queues, list)
        and any(queue.get("name") == name for queue in queues)
    )


def _former(name: str) -> list[str]:
    nodes = Node.objects.using(conf.current().database).exclude(state="gone")
    known = {
        node.name: node for node in nodes.only("name", "state", "seen_at", "queues")
    }
    began = {node.name for node in known.values() if name in node.queues}
    pause = last_pause(name)
    paused = set(pause.details.get("done", ())) if pause else set()
    # One that is lost answers nobody, and one without a row may be well.
    return sorted(
        node for node in began | paused if node not in known or not known[node].is_lost
    )


def _tell(
    app: Any,
    what: str,
    name: str,
    nodes: Sequence[str],
    who: str,
    why: str,
    seconds: float | None,
) -> Told:
    details = {"queue": name}
    with audit.recorded(what, name, who=who, why=why, details=details) as deed:
        answers = remote.broadcast(
            app,
            COMMANDS[what],
            {"queue": name},
            nodes=nodes,
            seconds=seconds,
            begins=deed.begins,
        )
        told = _read(nodes, answers)
        deed.details |= {
            "done": told.done,
            "failed": told.failed,
            "silent": told.silent,
        }
    return told


def _read(nodes: Sequence[str], answers: Mapping[str, Any]) -> Told:
    done = {node for node, answer in answers.items() if remote.agreed(answer)}
    return Told(
        done=tuple(sorted(done)),
        failed={
            node: remote.said(answer)
            for node, answer in sorted(answers.items())
            if node not in done
        },
        silent=tuple(node for node in nodes if node not in answers),
    )
