"""``manage.py unstuck status``: which nodes there are, what waits, and in whose hands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TextIO

from django.db import Error

from unstuck import conf, operations_alerts, project, queues
from unstuck.core.clock import system_clock
from unstuck.management.verbs._output import one_line, print_json, print_table
from unstuck.models import Node
from unstuck.queues import QueueFacts
from unstuck.recorder.chores import leader_now

HELP = (
    "nodes and queues at a glance: waiting, the oldest, in hand by node, delayed, dead"
)
NODE_HEADINGS = (
    *("NODE", "STATE", "SEEN", "UP", "SLOTS", "QUEUES"),
    *("FACTS LAG", "FACTS MISSING"),
)
HEADINGS = ("QUEUE", "WAITING", "OLDEST", "IN HAND", "DELAYED", "CONSUMERS")
UNTOLD = "?"
NO_CONSUMER = "no consumer"
NOT_ASKED: tuple[list[Node], str, None, str] = ([], "", None, "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which queues."""
    parser.add_argument(
        "queues",
        nargs="*",
        metavar="QUEUE",
        help="only these; without any, all that workers of this project consume, and "
        "the nodes",
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Print it: 0."""
    app = project.our_app()
    found = queues.count(app, options["queues"] or queues.names_of(app))
    nodes, leader, alerts, untold = NOT_ASKED if options["queues"] else _fleet()
    if options["json"]:
        told = None if untold else [_as_dict(node) for node in nodes]
        counted = [asdict(facts) for facts in found]
        data = {"nodes": told, "leader": leader, "alerts": alerts, "queues": counted}
        print_json(data, out)
        return 0
    for line in _alert_lines(alerts) if alerts else ():
        out.write(f"{line}\n\n")
    if nodes:
        print_table(NODE_HEADINGS, [_node_row(node) for node in nodes], out)
        out.write(f"\n{_chores(nodes, leader)}\n\n")
    if untold:
        out.write(f"Nodes: the database did not tell: {one_line(untold)}\n\n")
    print_table(HEADINGS, [_row(facts) for facts in found], out)
    if any(facts.untold for facts in found):
        out.write(f"{UNTOLD}: this broker does not tell.\n")
    return 0


def _fleet() -> tuple[list[Node], str, dict[str, Any] | None, str]:
    """The nodes that the archive knows, who leads, and what is told to people.

    Or why the database does not say.
    """
    alias = conf.current().database
    try:
        return list(Node.objects.using(alias)), leader_now(alias), _alerts(), ""
    except Error as error:
        return [], "", None, str(error).strip() or type(error).__name__


def _chores(nodes: list[Node], leader: str) -> str:
    """Who does the chores of the fleet, and how they go."""
    who = f"are done by {leader}" if leader else "are done by nobody just now"
    failed = sum(node.chores_failed for node in nodes)
    return f"Chores of the fleet {who}" + (f"; {failed} have failed" if failed else "")


def _alerts() -> dict[str, Any]:
    """How many fire, and which targets are not reached."""
    rows = operations_alerts.alerts()
    unreached = [
        {"target": target, "attempts": attempts, "error": error}
        for target, attempts, error in operations_alerts.unreached(rows)
    ]
    return {"firing": sum(row.is_firing for row in rows), "unreached": unreached}


def _alert_lines(found: Mapping[str, Any]) -> Iterator[str]:
    if found["firing"]:
        yield f"Alerts: {found['firing']} firing (`unstuck alerts list`)"
    for one in found["unreached"]:
        failed = (
            "1 try has" if one["attempts"] == 1 else f"{one['attempts']} tries have"
        )
        error = one_line(one["error"])
        yield f"Alerts do not reach {one['target']}: {failed} failed: {error}"


def _as_dict(node: Node) -> dict[str, object]:
    return {
        "name": node.name,
        "state": node.condition,
        "host": node.host,
        "pid": node.pid,
        "started_at": node.started_at,
        "seen_at": node.seen_at,
        "pool": node.pool,
        "concurrency": node.concurrency,
        "queues": node.queues,
        "broker": node.broker,
        "unstuck_version": node.unstuck_version,
        "celery_version": node.celery_version,
        "python_version": node.python_version,
        "release": node.release,
        "facts_lag_seconds": node.facts_lag_seconds,
        "chores_failed": node.chores_failed,
        "facts_dropped": node.facts_dropped,
        "facts_left_out": node.facts_left_out,
    }


def _node_row(node: Node) -> tuple[object, ...]:
    now = system_clock()
    return (
        node.name,
        node.condition,
        f"{_age(now - node.seen_at)} ago",
        _age(node.seen_at - node.started_at),
        node.concurrency,
        ", ".join(node.queues),
        f"{node.facts_lag_seconds:.1f} s",
        node.facts_dropped + node.facts_left_out or "",
    )


def _age(span: timedelta) -> str:
    """A length of time in its largest unit."""
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _row(facts: QueueFacts) -> tuple[object, ...]:
    return (
        facts.name,
        "none declared" if facts.waiting is None else facts.waiting,
        _oldest(facts),
        _in_hand(facts),
        UNTOLD if facts.delayed is None else facts.delayed,
        UNTOLD if "consumers" in facts.untold else _readers(facts.consumers),
    )


def _readers(number: int | None) -> object:
    """How many read from a queue; ``None`` of one that is not declared."""
    return number or NO_CONSUMER


def _oldest(facts: QueueFacts) -> str:
    if "oldest_seconds" in facts.untold:
        return UNTOLD
    return "" if facts.oldest_seconds is None else f"{facts.oldest_seconds:.1f} s"


def _in_hand(facts: QueueFacts) -> str:
    if facts.reserved is None:
        return UNTOLD
    each = (f"{node}: {number}" for node, number in sorted(facts.reserved.items()))
    return ", ".join(each)
