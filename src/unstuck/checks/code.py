"""Rules for the source of tasks: what hangs, and what cannot be stopped.

They see the function of a task and not what it calls, and only the project's own files.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping

from unstuck.checks import source
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.source import Call, Source, number_in
from unstuck.checks.view import Project
from unstuck.core.publish import ON_COMMIT

WAITS_FOR_EVER = {
    **{
        f"requests.{verb}": 99
        for verb in ("get", "post", "put", "patch", "delete", "head", "request")
    },
    **{
        f"requests.Session().{verb}": 99
        for verb in ("get", "post", "put", "patch", "delete", "head", "request")
    },
    "urllib.request.urlopen": 3,
    "smtplib.SMTP": 4,
    "smtplib.SMTP_SSL": 6,
    "ftplib.FTP": 5,
    "http.client.HTTPConnection": 3,
    "http.client.HTTPSConnection": 3,
    "socket.create_connection": 2,
}
"""Calls without a timeout unless one is given: as argument number so, or by name."""

LONG_SLEEP = 60

SENDS = (".delay", ".apply_async")
RESULTS = (
    *SENDS,
    "celery.result.AsyncResult",
    "celery.result.GroupResult",
    ".AsyncResult",
    "celery.group()",
    "celery.chain()",
    "celery.chord()",
)
WAITS = ("get", "join", "wait", "wait_for", "join_native")
ALLOWED = ("disable_sync_subtasks", "**")

DECORATED = re.compile(r"^\s*@(shared_task|\w+\.task)\b", re.MULTILINE)
ATOMIC = ("transaction.atomic", "transaction.atomic()")


@rule(
    "E034",
    title="a task that waits for another task",
    says="The task {task} calls {call} ({where}), which Celery forbids in a task: it raises "
    "RuntimeError.",
    remedy="Chain them: (first.s() | second.s()).delay(), or a chord for many.",
)
def tasks_that_wait_for_tasks(project: Project) -> Iterator[Found]:
    """E034: all processes could come to wait for tasks that find none."""
    for task, call, where, allowed in _waiting(project):
        if not allowed:
            yield found(task, task=task, call=call, where=where)


@rule(
    "W060",
    title="a task that waits for another task, and was allowed to",
    says="The task {task} calls {call} ({where}): when all processes wait so, none is left for "
    "what they wait for, and all of them hang until their limit.",
    remedy="Chain them, or send what is waited for to a queue with workers of its own.",
)
def tasks_that_may_wait_for_tasks(project: Project) -> Iterator[Found]:
    """W060: ``disable_sync_subtasks=False`` or ``allow_join_result()`` takes the guard away."""
    for task, call, where, allowed in _waiting(project):
        if allowed:
            yield found(task, task=task, call=call, where=where)


@rule(
    "W051",
    title="a loop that swallows the soft limit",
    says="The task {task} has a loop without end that catches every exception ({where}): the soft "
    "limit is one, so only the hard limit ends it.",
    remedy="Catch what you expect, or let SoftTimeLimitExceeded through: "
    "`except SoftTimeLimitExceeded: raise`.",
)
def loops_that_swallow(project: Project) -> Iterator[Found]:
    """W051: ``while True`` with ``except Exception`` that goes on."""
    for view in project.tasks:
        for node in ast.walk(view.source.node) if view.source else ():
            if isinstance(node, ast.While) and _is_endless(node):
                for line in _swallowing(node):
                    yield found(view.name, task=view.name, where=view.at(line))


@rule(
    "W052",
    title="a call that may wait for ever",
    says="The task {task} calls {call} without a timeout ({where}): against a server that does not "
    "answer it hangs until the task's limit.",
    remedy="Pass timeout=….",
)
def calls_without_timeout(project: Project) -> Iterator[Found]:
    """W052: the commonest reason for a task that hangs."""
    for view in project.tasks:
        for call in view.calls:
            place = WAITS_FOR_EVER.get(call.name)
            if place is None or {"timeout", "**"} & call.keywords.keys():
                continue
            if len(call.node.args) < place:
                where = view.at(call.line)
                yield found(view.name, task=view.name, call=call.name, where=where)


@rule(
    "W053",
    title="a long sleep in a task",
    says="The task {task} sleeps for {seconds:g} s ({where}) and keeps its process for as long"
    "{worse}.",
    remedy="Raise self.retry(countdown={seconds:g}), or send a task with that countdown.",
)
def long_sleeps(project: Project) -> Iterator[Found]:
    """W053: a message can wait on the broker instead."""
    for view in project.tasks:
        for call in view.calls:
            first = call.node.args[0] if call.node.args else None
            seconds = number_in(first) if call.name == "time.sleep" else None
            if seconds is None or seconds < LONG_SLEEP:
                continue
            limit = view.task.time_limit
            over = limit and seconds >= limit
            worse = f"; its hard limit of {limit:g} s comes first" if over else ""
            yield found(
                view.name,
                task=view.name,
                seconds=seconds,
                worse=worse,
                where=view.at(call.line),
            )


@rule(
    "W043",
    title="tasks in a file that no worker imports",
    says="{path} has tasks, and nothing imports it when a worker starts: their messages would be "
    "of unknown tasks.",
    remedy="Call it tasks.py, name it in {imports}, or import it in the app's AppConfig.ready().",
)
def files_that_nobody_imports(project: Project) -> Iterator[Found]:
    """W043: of the Django apps that are the project's own."""
    if project.load_error:
        return
    loaded = {
        getattr(module, "__dict__", {}).get("__file__")
        for module in list(sys.modules.values())
    }
    for path in project.files:
        text = source.text_of(path)
        if path not in loaded and "celery" in text and DECORATED.search(text):
            yield found(path, path=path, imports=project.spelled("imports"))


@rule(
    "W049",
    title="a task that is sent before its transaction is committed",
    says="{where} calls {call} within transaction.atomic(): the task may start before the commit, and "
    "is sent as well when the transaction is rolled back.",
    remedy='Use delay_on_commit(), pass publish="on_commit", or set {key} = "on_commit".',
)
def sent_before_the_commit(project: Project) -> Iterator[Found]:
    """W049: what stands within the block itself; a transaction of a caller is not seen."""
    if project.conf.task_publish == ON_COMMIT:
        return
    key = project.spelled("task_publish")
    for path in project.files:
        text = source.text_of(path)
        if "atomic" not in text or not any(f"{send}(" in text for send in SENDS):
            continue
        for call in _sent_in_transactions(path):
            where = f"{path}:{call.line}"
            yield found(where, where=where, call=call.name, key=key)


def _waiting(project: Project) -> Iterator[tuple[str, str, str, bool]]:
    for view in project.tasks:
        if view.source is None or not _forbids_waiting(project):
            continue
        pending = _names_of_results(view.source)
        joined = any(call.name.endswith("allow_join_result") for call in view.calls)
        for call in view.calls:
            before, _, verb = call.name.rpartition(".")
            is_result = before in pending or before.endswith(
                tuple(f"{name}()" for name in RESULTS)
            )
            if verb in WAITS and is_result and not _asks_for_a_key(call):
                allowed = joined or bool(set(ALLOWED) & call.keywords.keys())
                yield view.name, f"{call.name}()", view.at(call.line), allowed


def _forbids_waiting(project: Project) -> bool:
    """Not where greenlets run other tasks meanwhile, nor where none is sent."""
    pool = str(project.conf.worker_pool)
    is_green = "gevent" in pool or "eventlet" in pool
    return not is_green and not project.conf.task_always_eager


def _names_of_results(place: Source) -> set[str]:
    """Variables that hold the result of a call that was sent, and nothing else."""
    results: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(place.node):
        if isinstance(node, ast.Assign):
            is_result = isinstance(node.value, ast.Call) and source.dotted(
                node.value.func, place.imports
            ).endswith(RESULTS)
            named = {name.id for name in node.targets if isinstance(name, ast.Name)}
            (results if is_result else others).update(named)
    return results - others


def _asks_for_a_key(call: Call) -> bool:
    """Whether it is a ``get("key")``, as dicts have; a result is asked with seconds."""
    first = call.node.args[0] if call.node.args else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str)


def _is_endless(loop: ast.While) -> bool:
    return isinstance(loop.test, ast.Constant) and bool(loop.test.value)


def _swallowing(loop: ast.While) -> Iterator[int]:
    for node in ast.walk(loop):
        for handler in node.handlers if isinstance(node, ast.Try) else ():
            if _catches_all(handler) and not _leaves(handler):
                yield handler.lineno
            if _names(handler.type) & {"SoftTimeLimitExceeded"}:
                break  # It is let through, or dealt with, before what comes below.


def _catches_all(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or bool(
        _names(handler.type) & {"Exception", "BaseException"}
    )


def _names(node: ast.expr | None) -> set[str]:
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {source.dotted(part, {}).rpartition(".")[2] for part in parts if part}


def _leaves(handler: ast.ExceptHandler) -> bool:
    return any(
        isinstance(node, (ast.Raise, ast.Return, ast.Break))
        for node in ast.walk(handler)
    )


def _sent_in_transactions(path: str) -> Iterator[Call]:
    file = source.parsed(path)
    for node in ast.walk(file.tree) if file else ():
        if isinstance(node, (ast.With, ast.AsyncWith)):
            marks = [item.context_expr for item in node.items]
        elif isinstance(node, source.Function):
            marks = node.decorator_list
        else:
            continue
        if file and any(
            source.dotted(mark, file.imports).endswith(ATOMIC) for mark in marks
        ):
            for part in node.body:
                if _is_for_later(part):
                    continue
                yield from _sent_at_once(part, file.imports)


def _sent_at_once(node: ast.AST, imports: Mapping[str, str]) -> Iterator[Call]:
    for call in source.calls_below(node, imports, skip=_is_for_later):
        if call.name.endswith(SENDS) and not {"publish", "**"} & call.keywords.keys():
            yield call


def _is_for_later(node: ast.AST) -> bool:
    """Whether a piece of source is run later, perhaps after the commit."""
    if isinstance(node, ast.Call):
        return source.dotted(node.func, {}).endswith("on_commit")
    return isinstance(node, (ast.Lambda, source.Function))
