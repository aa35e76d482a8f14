"""Rules for where nodes, and this process, differ: versions, settings, tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from unstuck.doctor.facts import Code, Seen
from unstuck.doctor.rule import Found, Level, found, rule

HERE = "this process"
UNSAID = "not set"


@rule(
    "D070",
    Level.WARNING,
    title="versions that differ",
    says="{name} differs: {values}.",
    why="A message that one sends another may not understand; what one mends another "
    "breaks. In the middle of a deploy it is as it should be.",
    remedy="deploy the same to all, and start again those that are behind: {behind}",
)
def versions(seen: Seen) -> Iterator[Found]:
    """D070: unstuck, Celery, kombu, Django, Python, and the release of the project."""
    yield from _differences(seen, lambda code: code.versions)


@rule(
    "D071",
    Level.WARNING,
    title="settings that differ",
    says="{name} differs: {values}.",
    why="What becomes of a task depends on which process has it.",
    remedy="give all the same settings and environment, and start again those that differ: "
    "{behind}",
)
def settings(seen: Seen) -> Iterator[Found]:
    """D071: what concern one node alone (worker_…) is left out; secrets are not compared."""
    yield from _differences(seen, lambda code: code.settings)


@rule(
    "D072",
    Level.WARNING,
    title="a node that does not know tasks of its queues",
    says="{node} reads {queues} with others and does not know {tasks}.",
    why="It puts such a message back for ten minutes and then makes it a dead letter.",
    remedy="deploy the same code to {node}, or let it import the modules of these tasks",
)
def tasks(seen: Seen) -> Iterator[Found]:
    """D072: that others who read the same queue know."""
    for node in seen.nodes:
        others = [
            each
            for each in seen.nodes
            if each is not node and each.queues & node.queues
        ]
        known = {task for each in others for task in each.code.tasks}
        if lacks := sorted(known - node.code.tasks):
            shared = node.queues & {q for each in others for q in each.queues}
            yield found(
                node.name,
                since=node.started_at,
                node=node.name,
                queues=", ".join(sorted(shared)),
                tasks=_some(lacks),
            )


def _differences(
    seen: Seen, told: Callable[[Code], Mapping[str, str]]
) -> Iterator[Found]:
    started = {node.name: node.started_at for node in seen.nodes}
    codes = {HERE: seen.here.code, **{node.name: node.code for node in seen.nodes}}
    names = sorted({name for code in codes.values() for name in told(code)})
    for name in names:
        holders: dict[str, list[str]] = {}
        for who, code in codes.items():
            holders.setdefault(told(code).get(name, UNSAID), []).append(who)
        if len(holders) > 1:
            yield _difference(name, holders, started)


def _difference(
    name: str, holders: Mapping[str, list[str]], started: Mapping[str, datetime]
) -> Found:
    values = "; ".join(
        f"{value} in {_some(who)}" for value, who in sorted(holders.items())
    )
    most = max(holders.values(), key=len)
    behind = [who for each in holders.values() if each is not most for who in each]
    # Since the last of them is there that has another value than somebody else.
    since = max((started[who] for who in behind if who in started), default=None)
    return found(name, since=since, name=name, values=values, behind=_some(behind))


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
