"""Asking and telling all nodes by Celery's remote control, within a bound."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.letters.queue import asking
from unstuck.models import Node
from unstuck.operations import broker_errors

ANSWER_SECONDS = 2.0
"""So long nodes may take to answer: main answers between two messages."""

EXPECTED_FOR = timedelta(hours=1)
"""A lost node that was seen within this time may still be there."""

MOST_EXPECTED = 1_000


class Untold(NamedTuple):
    """Something that could not be asked, and what of it."""

    what: str
    """``broker``, ``node``, ``locks``, ``results``, ``no_results``, ``kind`` of broker,
    ``queue`` that was not looked through to its end, ``queues`` that were not looked into at
    all, or ``database``."""

    which: str = ""
    number: int | None = None


def broadcast(
    app: Any,
    command: str,
    arguments: Mapping[str, Any],
    *,
    nodes: Sequence[str] | None = None,
    enough: int | None = None,
    seconds: float | None = None,
    heard: Callable[[Mapping[str, Any]], object] | None = None,
    begins: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """What each node answered, of all or of those named; who was silent is not in it.

    The time is over ``seconds`` after the last answer (else ``ANSWER_SECONDS``), or with
    so many as are ``enough``; ``heard`` is called with each as it comes. Raises
    ``BrokerUnreachable``. Before ``begins`` is called nobody was told anything; after it
    all may have been, whatever is raised.
    """
    with broker_errors(app), asking(app) as connection:
        begins()
        replies = app.control.broadcast(
            command,
            arguments=dict(arguments),
            destination=nodes,
            connection=connection,
            reply=True,
            timeout=ANSWER_SECONDS if seconds is None else seconds,
            limit=enough,
            callback=heard,
        )
    return {node: answer for reply in replies or [] for node, answer in reply.items()}


def ask_all(
    app: Any,
    command: str,
    arguments: Mapping[str, Any],
    *,
    expected: Collection[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """What the nodes answered, and which of those that were expected to did not.

    It is over once so many have answered as were expected. Raises ``BrokerUnreachable``.
    """
    enough = len(expected) or None
    answers = broadcast(app, command, arguments, enough=enough)
    missing = sorted(set(expected) - answers.keys())
    if enough and missing and len(answers) >= enough:
        # Others were faster, of which nobody knew.
        answers |= broadcast(app, command, arguments, nodes=missing)
    return answers, [node for node in missing if node not in answers]


def expected_nodes() -> list[str]:
    """The nodes that are there, as far as the archive knows, or were within the hour."""
    nodes = Node.objects.using(conf.current().database).exclude(state="gone")
    recent = nodes.filter(seen_at__gt=system_clock() - EXPECTED_FOR)
    return list(recent.values_list("name", flat=True)[:MOST_EXPECTED])


def said(answer: Any) -> str:
    """What a node says that it did; an error if that is what it says."""
    if isinstance(answer, Mapping):
        return str(answer.get("ok") or answer.get("error") or "")
    return str(answer)


def agreed(answer: Any) -> bool:
    """Whether a node did what it was told."""
    return isinstance(answer, Mapping) and "ok" in answer
