"""Sending the tasks of `tests.project.hangs`, and what they leave behind."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tests.node import Node, Site
from tests.waiting import eventually

MODULE = "tests.project.hangs"
MARKED = re.compile(
    r'File "(?P<path>[^"]+)", line \d+, in (?P<function>\S+)  <-- here\n'
    r" +(?P<source>.+)"
)

Row = dict[str, Any]


def worker(
    site: Site, *options: str, prefix: Sequence[str] = ()
) -> AbstractContextManager[Node]:
    """A worker that has these tasks; SIGKILLed at the end of the block."""
    return site.node("-I", MODULE, *options, prefix=prefix)


def send(site: Site, name: str, *args: Any, **options: Any) -> str:
    """Send one task; its id."""
    [task_id] = send_all(site, [(name, args)], **options)
    return task_id


def send_all(
    site: Site, calls: Iterable[tuple[str, Collection[Any]]], **options: Any
) -> list[str]:
    """Send tasks with their arguments; their ids."""
    with site.client() as app:
        return [
            str(app.send_task(f"{MODULE}.{name}", tuple(args), **options).id)
            for name, args in calls
        ]


def finish(site: Site, task_ids: Iterable[str], seconds: float = 60) -> list[Any]:
    """Wait until all of these have succeeded; what they returned."""
    with site.client() as app:
        return [site.result(app, task_id, seconds) for task_id in task_ids]


def pid_of(site: Site, task_id: str, seconds: float = 20) -> int:
    """The process that runs a task, once it does."""
    run, *_ = eventually(lambda: site.events("run", id=task_id), seconds)
    return int(run["pid"])


def rows(site: Site, model: str, **filters: Any) -> list[Row]:
    """What the recorder has stored."""
    return site.rows(model, **filters)


def by_task(
    site: Site, model: str, task_ids: Collection[str], seconds: float = 30
) -> Mapping[str, Row]:
    """The one row of each of these tasks, by the task's id, once all are stored."""

    def all_of_them() -> list[Row]:
        found = rows(site, model, task_id__in=list(task_ids))
        missing = set(task_ids) - {row["task_id"] for row in found}
        assert not missing, f"no {model} of {missing}"
        return found

    found = eventually(all_of_them, seconds)
    assert len(found) == len(task_ids), [row["task_id"] for row in found]
    return {row["task_id"]: row for row in found}


def wait_for_burials(node: Node, count: int, seconds: float = 60) -> None:
    """Wait until main has buried so many; asks no process that would take CPU."""

    def enough() -> bool:
        buried = node.log().count("] is buried: ")
        assert buried >= count, f"{buried} of {count} buried"
        return True

    eventually(enough, seconds)


def marked(stack: str) -> tuple[str, str]:
    """The function and the source line that a stack marks as the guilty ones."""
    found = list(MARKED.finditer(stack))
    assert len(found) == 1, stack
    assert found[0]["path"].endswith("project/hangs.py")
    return found[0]["function"], found[0]["source"]
