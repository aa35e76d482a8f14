"""``manage.py unstuck status``: which nodes there are, what waits, and in whose hands."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TextIO

from django.db import Error

from unstuck import conf, project, queues
from unstuck.core.clock import system_clock
from unstuck.management.verbs._output import one_line, print_json, print_table
from unstuck.models import Node
from unstuck.queues import QueueFacts

HELP = (
    "nodes and queues at a glance: waiting, the oldest, in hand by node, delayed, dead"
)
NODE_HEADINGS = ("NODE", "STATE", "SEEN", "UP", "SLOTS", "QUEUES", "FACTS MISSING")
HEADINGS = ("QUEUE", "WAITING", "OLDEST", "IN HAND", "DELAYED")
UNTOLD = "?"


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
    nodes, untold = ([], "") if options["queues"] else _nodes()
    if options["json"]:
        told = None if untold else [_as_dict(node) for node in nodes]
        print_json({"nodes": told, "queues": [asdict(facts) for facts in found]}, out)
        return 0
    if nodes:
        print_table(NODE_HEADINGS, [_node_row(node) for node in nodes], out)
        out.write("\n")
    if untold:
        out.write(f"Nodes: the database did not tell: {one_line(untold)}\n\n")
    print_table(HEADINGS, [_row(facts) for facts in found], out)
    if any(facts.untold for facts in found):
        out.write(f"{UNTOLD}: this broker does not tell.\n")
    return 0


def _nodes() -> tuple[list[Node], str]:
    """The nodes that the archive knows, or why the database does not say."""
    try:
        return list(Node.objects.using(conf.current().database)), ""
    except Error as error:
        return [], str(error).strip() or type(error).__name__


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
    )


def _oldest(facts: QueueFacts) -> str:
    if "oldest_seconds" in facts.untold:
        return UNTOLD
    return "" if facts.oldest_seconds is None else f"{facts.oldest_seconds:.1f} s"


def _in_hand(facts: QueueFacts) -> str:
    if facts.reserved is None:
        return UNTOLD
    each = (f"{node}: {number}" for node, number in sorted(facts.reserved.items()))
    return ", ".join(each)
