"""Rules for the tasks of the project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.db import DEFAULT_DB_ALIAS

from unstuck import conf
from unstuck.checks import foreign_locks
from unstuck.checks.view import own_limits
from unstuck.core import publish
from unstuck.core.limits import SOFT_SHARE
from unstuck.project import spelled
from unstuck.worker import lock_options
from unstuck.worker.task import own_tasks


def could_not_be_loaded(app: Any, error: Exception | None) -> Iterator[CheckMessage]:
    """W004: a module with tasks raises when it is imported.

    No error, because the worker will say the same, while a project whose modules ask
    the database at import could not even migrate.
    """
    if error is not None:
        yield Warning(
            f"The tasks cannot be imported, so they were not checked: "
            f"{type(error).__name__}: {error}",
            hint="Correct the module; a worker imports it, too.",
            obj=app.main,
            id="unstuck.W004",
        )


def own_soft_not_below_own_hard(app: Any) -> Iterator[CheckMessage]:
    """E004: a task's soft limit would come no earlier than its hard limit."""
    for task in own_tasks(app):
        own = own_limits(task)
        if own.hard and own.soft and own.soft >= own.hard:
            yield Error(
                f"The task {task.name} has soft_time_limit={own.soft!r}, which is not "
                f"below its time_limit={own.hard!r}: it would be killed before it is "
                f"told.",
                hint=f"Use soft_time_limit={own.hard * SOFT_SHARE:g} or less, or "
                f"leave it out.",
                obj=task.name,
                id="unstuck.E004",
            )


def retries_for_ever(app: Any) -> Iterator[CheckMessage]:
    """W001: retries without end, by setting or by task."""
    if app.conf.task_max_retries is None:
        key = spelled(app.conf, "task_max_retries")
        yield Warning(
            f"{key} = None lets every task retry for ever.",
            hint="Set a number of retries, or remove it for the default 3.",
            obj=key,
            id="unstuck.W001",
        )
        return
    for task in own_tasks(app):
        if task.max_retries is None:
            yield Warning(
                f"The task {task.name} has max_retries=None: it may retry for ever.",
                hint="Give it a number of retries, or leave the option out.",
                obj=task.name,
                id="unstuck.W001",
            )


def soft_that_is_cut(app: Any) -> Iterator[CheckMessage]:
    """W006: a task's soft limit is above the hard limit that others give it."""
    for task in own_tasks(app):
        own = own_limits(task)
        hard = task.time_limit
        if own.soft and not own.hard and hard and own.soft > hard * SOFT_SHARE:
            yield Warning(
                f"The task {task.name} has soft_time_limit={own.soft!r}, which is cut "
                f"to {task.soft_time_limit:g}, because it has no time_limit of its "
                f"own and the one in force is {hard!r}.",
                hint=f"Give it a time_limit above {own.soft!r} as well.",
                obj=task.name,
                id="unstuck.W006",
            )


def published_in_no_known_way(app: Any) -> Iterator[CheckMessage]:
    """E007: a task's ``publish`` is none of the choices, so that a call would raise."""
    for task in own_tasks(app):
        own = getattr(task, "publish", None)
        if own is None or callable(own):
            continue
        if problem := publish.problem_with(own):
            yield Error(
                f"The task {task.name} has publish={own!r}, which {problem}",
                hint="Correct it, or leave it out for what the settings say.",
                obj=task.name,
                id="unstuck.E007",
            )


def locks_that_cannot_be_taken(app: Any) -> Iterator[CheckMessage]:
    """E008: a task's options of its lock are wrong, so that each call would fail."""
    for task in own_tasks(app):
        for problem in lock_options.problems_with(task):
            yield Error(
                problem,
                hint="See docs/locks.md.",
                obj=task.name,
                id="unstuck.E008",
            )


def outbox_beside_the_transactions(app: Any) -> Iterator[CheckMessage]:
    """W008: the outbox is not in the database that transactions are in by default.

    Silent where nobody publishes on commit, and where our settings cannot be read.
    """
    given = conf.given()
    database = given.get("DATABASE") if isinstance(given, Mapping) else None
    if database in (None, DEFAULT_DB_ALIAS) or not _any_waits_for_commit(app):
        return
    yield Warning(
        f"Tasks are published on commit, and UNSTUCK['DATABASE'] = {database!r}: what "
        f"is called in a transaction of {DEFAULT_DB_ALIAS!r} is sent after its commit, "
        f"but lost when the process dies between the two.",
        hint="Leave DATABASE out, unless all your transactions are in that one.",
        obj="UNSTUCK",
        id="unstuck.W008",
    )


def locks_that_are_not_ours(app: Any) -> Iterator[CheckMessage]:
    """W009: a task takes a lock that neither lasts nor ends with it."""
    for task in own_tasks(app):
        yield from foreign_locks.messages(task)


def _any_waits_for_commit(app: Any) -> bool:
    said = [getattr(task, "publish", None) for task in own_tasks(app)]
    return publish.ON_COMMIT in (app.conf.task_publish, *said)
