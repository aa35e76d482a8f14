"""Rules for what is around a node: process 1, descriptors, memory, threads."""

from __future__ import annotations

from collections.abc import Iterator

from unstuck.doctor.facts import Node, Seen
from unstuck.doctor.rule import Found, Level, found, rule
from unstuck.doctor.words import mib

NEARLY_ALL = 0.8


@rule(
    "D080",
    Level.ERROR,
    title="a process 1 that keeps SIGTERM to itself",
    says="{node} runs below process 1 ({command}), which does nothing at a SIGTERM.",
    why="A container is stopped by a SIGTERM to process 1. The worker does not hear of it: "
    "it takes tasks until it is killed, and they run again.",
    remedy="`exec celery -A {app} worker …`, in the script or the command of the container; or "
    "`docker run --init`",
)
def deaf_process1(seen: Seen) -> Iterator[Found]:
    """D080: mostly a shell. The kernel drops what process 1 has no handler for."""
    for node in seen.nodes:
        first = node.process1
        if first and first.is_above and not first.is_first and not first.hears_sigterm:
            yield _of(seen, node, command=first.command)


@rule(
    "D081",
    Level.WARNING,
    title="a process 1 that collects no strangers",
    says="{node} is process 1 and leaves processes that have ended where they are.",
    why="What its tasks start and let go of stays as a zombie, until no process can be "
    "started any more.",
    remedy="`docker run --init`; or the default pool, whose supervisor collects them",
)
def uncollecting_process1(seen: Seen) -> Iterator[Found]:
    """D081: Celery's own pools."""
    for node in seen.nodes:
        if node.process1 and node.process1.is_first and not node.collects_strangers:
            yield _of(seen, node)


@rule(
    "D082",
    Level.WARNING,
    title="a process with few descriptors left",
    says="Process {pid} of {node} has {used} of {most} descriptors in use.",
    why="With none left it can open no file and no connection: tasks fail, and main loses "
    "its broker.",
    remedy="`ulimit -n {more}`, before it starts (LimitNOFILE={more} in systemd, --ulimit in "
    "Docker); `ls -l /proc/{pid}/fd` on {host} shows what leaks",
)
def few_descriptors(seen: Seen) -> Iterator[Found]:
    """D082: of the one process that has the fewest."""
    for node in seen.nodes:
        files = node.descriptors
        if files and files.used > NEARLY_ALL * files.most:
            more = max(65_536, 4 * files.most)
            yield _of(
                seen, node, pid=files.pid, used=files.used, most=files.most, more=more
            )


@rule(
    "D083",
    Level.WARNING,
    title="children that may need more memory than there is",
    says="{node} may have {limit}; its {slots} children with {child} each ({who}) need "
    "{need}.",
    why="The kernel then kills one of them, or all: each is a strike for a task that has "
    "done nothing wrong.",
    remedy="`celery -A {app} worker --concurrency={fits}`, or `--max-memory-per-child={kib}`; or "
    "more memory for {host}",
)
def little_memory(seen: Seen) -> Iterator[Found]:
    """D083: the limit is that of its cgroup, else the memory of its host."""
    for node in seen.nodes:
        room = node.room
        if room is None:
            continue
        own = max(0, room.child - room.base)
        need = room.base + room.slots * own
        if need > room.limit:
            left = max(0, room.limit - room.base)
            yield _of(
                seen,
                node,
                limit=mib(room.limit),
                slots=room.slots,
                child=mib(room.child),
                who="--max-memory-per-child" if room.is_set else "as much as one had",
                need=mib(need),
                fits=max(1, left // own),
                kib=(room.base + left // room.slots) // 1024,
            )


@rule(
    "D084",
    Level.WARNING,
    title="threads that were there before the fork",
    says="{node} had threads before it forked its processes: {threads}.",
    why="They are not in the processes that run tasks, and a lock that one of them held at "
    "that moment stays locked there for ever.",
    remedy="start them in a receiver of celery.signals.worker_process_init instead of at "
    "import",
)
def early_threads(seen: Seen) -> Iterator[Found]:
    """D084: an import of the project has started them."""
    for node in seen.nodes:
        if node.threads:
            yield _of(seen, node, threads=", ".join(node.threads))


def _of(seen: Seen, node: Node, **facts: object) -> Found:
    return found(
        node.name,
        since=node.started_at,
        node=node.name,
        host=node.host,
        app=seen.here.app,
        **facts,
    )
