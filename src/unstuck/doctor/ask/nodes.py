"""Asking all nodes what only they know, by Celery's remote control."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from unstuck.app import Celery
from unstuck.core.clock import system_clock
from unstuck.doctor.ask.here import code_from
from unstuck.doctor.ask.skews import skew
from unstuck.doctor.facts import Descriptors, Node, Part, Process1, Room
from unstuck.remote import broadcast
from unstuck.worker.remote import TOLD_COMMAND

SECONDS = 3.0


def ask(app: Celery) -> tuple[dict[str, Any], dict[Part, str]]:
    """The nodes that answered, and those that answered something else.

    Raises ``BrokerUnreachable``.
    """
    heard: dict[str, float] = {}

    def note(reply: Mapping[str, Any]) -> None:
        heard.update(dict.fromkeys(reply, time.time()))

    sent = time.time()
    answers = broadcast(app, TOLD_COMMAND, {}, seconds=SECONDS, heard=note)
    nodes, foreign = [], {}
    for name, said in sorted(answers.items()):
        try:
            nodes.append(_node(name, said, skew(said["clock"], sent, heard[name])))
        except (KeyError, TypeError):  # It is of another version.
            foreign[name] = repr(said)[:200]
    problems = {}
    if not answers:
        problems[Part.NODES] = f"none answered within {SECONDS:g} s"
    return {"nodes": tuple(nodes), "foreign": foreign}, problems


def _node(name: str, said: Mapping[str, Any], ahead: float) -> Node:
    host = said["host"]
    return Node(
        name=name,
        code=code_from(said["code"]),
        started_at=system_clock() - timedelta(seconds=host["age"]),
        queues=frozenset(said["queues"]),
        skew=ahead,
        host=host["name"],
        collects_strangers=host["collects_strangers"],
        process1=_made(Process1, host["process1"]),
        descriptors=_made(Descriptors, host["descriptors"]),
        room=_made(Room, host["room"]),
        threads=tuple(host["threads"]),
    )


def _made(kind: Any, said: Mapping[str, Any] | None) -> Any:
    return kind(**said) if said else None
