"""Rules for messages and results: how they are written, where they go, how long they stay."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from kombu.serialization import registry

from unstuck.checks import known, source
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project, shown
from unstuck.queues import queue_in, queue_of, routes_in

PICKLE = ("pickle", "application/x-python-serialize")

ADDRESS = re.compile(
    r"(?:unstuck\+)?(?:redis|rediss|sentinel|amqps?|pyamqp|mongodb|postgresql|postgres|mysql)"
    r"(?:\+\w+)?://[^\s:/@]*:(?P<password>[^@\s{}%$<>]+)@(?P<host>[^/:\s]+)"
)
"""An address with a password in it."""

HERE = ("localhost", "127.0.0.1", "[::1]", "redis", "rabbitmq", "HOST", "host")
"""Hosts whose passwords are no secret: this one, and the names in examples."""


@rule(
    "E030",
    title="messages that no worker takes",
    says="{subject}, and {accept} = {accepted}: every {what} is refused.",
    remedy="Add {serializer!r} to {accept}, or write them as JSON, the default.",
)
def serializers_that_are_not_accepted(project: Project) -> Iterator[Found]:
    """E030: what is written by one setting is not accepted by another."""
    conf = project.conf
    accept = project.spelled("accept_content")
    written = [("task_serializer", conf.accept_content, "message")]
    if conf.result_backend:
        accepted = conf.result_accept_content or conf.accept_content
        written.append(("result_serializer", accepted, "result"))
    for name, accepted, what in written:
        if not _is_accepted(conf[name], accepted):
            subject = project.shown(name)
            yield _refused(
                project.spelled(name), subject, conf[name], accept, accepted, what
            )
    for view in project.tasks:
        own = view.task.serializer
        if own != conf.task_serializer and not _is_accepted(own, conf.accept_content):
            subject = f"The task {view.name} has serializer={own!r}"
            accepted, what = conf.accept_content, "message of it"
            yield _refused(view.name, subject, own, accept, accepted, what)


@rule(
    "W039",
    title="pickle, by which a message can run any code",
    says="{shown}: who can write to the broker or the result store can run code in your "
    "processes.",
    remedy="Use JSON, the default; give tasks ids rather than objects.",
)
def pickle(project: Project) -> Iterator[Found]:
    """W039: accepted, or written, which makes somebody accept it."""
    for name in ("accept_content", "result_accept_content"):
        if any(each in PICKLE for each in project.conf[name] or ()):
            yield found(project.spelled(name), shown=project.shown(name))
    for name in ("task_serializer", "result_serializer", "event_serializer"):
        if project.conf[name] in PICKLE:
            yield found(project.spelled(name), shown=project.shown(name))
    for view in project.tasks:
        if (
            view.task.serializer in PICKLE
            and project.conf.task_serializer not in PICKLE
        ):
            subject = f"The task {view.name} has serializer={view.task.serializer!r}"
            yield found(view.name, shown=subject)


@rule(
    "W040",
    title="a password in a source file",
    says="{where} has the address of a server with its password ({scheme}://…@{host}).",
    remedy="Read it from the environment, without a default, and change the password.",
)
def passwords_in_source(project: Project) -> Iterator[Found]:
    """W040: in the settings and where the app is made; the message does not repeat it."""
    for module in project.config_modules:
        path = str(module.__file__)
        for line, text in _texts(path):
            match = ADDRESS.search(text)
            if match and match["host"] not in HERE:
                scheme = match[0].partition("://")[0]
                where = f"{path}:{line}"
                yield found(where, where=where, scheme=scheme, host=match["host"])


@rule(
    "W038",
    title="results that stay for ever",
    says="{shown}: nothing deletes a result from {store}.",
    remedy="Remove it for the default of a day, or give a number of seconds.",
)
def results_without_expiry(project: Project) -> Iterator[Found]:
    """W038: the store grows until it is full."""
    expires = project.conf.result_expires
    if project.conf.result_backend and expires in (None, 0, timedelta(0)):
        key = project.spelled("result_expires")
        store = shown(project.conf.result_backend)
        yield found(key, shown=project.shown("result_expires"), store=store)


@rule(
    "E036",
    title="a chord, and no result store",
    says="The task {task} calls chord ({where}), and there is no result store: it raises "
    "NotImplementedError.",
    remedy="Set {key}; a chord counts its results there.",
)
def chords_without_a_store(project: Project) -> Iterator[Found]:
    """E036: a chord needs to know when its tasks are done."""
    store = project.conf.result_backend
    if store and not str(store).startswith("disabled"):
        return
    key = project.spelled("result_backend")
    for view in project.tasks:
        for call in view.calls:
            if call.name in ("celery.chord", "celery.canvas.chord"):
                where = view.at(call.line)
                yield found(view.name, task=view.name, where=where, key=key)


@rule(
    "W041",
    title="a route that no task takes",
    says="{key} has {name!r}, and no task here has such a name{near}.",
    remedy="Correct the name, or remove the route.",
)
def routes_of_no_task(project: Project) -> Iterator[Found]:
    """W041: only of names that begin like tasks of this project; others may be elsewhere."""
    key = project.spelled("task_routes")
    names = [view.name for view in project.tasks]
    roots = {name.partition(".")[0] for name in names}
    for name, _ in routes_in(project.conf.task_routes):
        if not isinstance(name, str) or project.load_error:
            continue
        taken = name in project.app.tasks or any(fnmatchcase(n, name) for n in names)
        near = known.meant(name, names, cutoff=0.85)
        if not taken and (near or name.partition(".")[0] in roots):
            ask = f"; did you mean {near!r}?" if near else ""
            yield found(key, key=key, name=name, near=ask)


@rule(
    "W042",
    title="a queue that no worker reads",
    says="{who} sends to the queue {queue!r}, which {key} does not have: a worker reads "
    "those that it has, and what is sent to another waits for ever.",
    remedy="Add it to {key}, or start a worker with -Q {queue} and silence this.",
)
def queues_that_nobody_reads(project: Project) -> Iterator[Found]:
    """W042: only where the project lists its queues."""
    if project.conf.task_create_missing_queues:
        yield from _undeclared(project)


@rule(
    "E031",
    title="a queue that must not be made, and is not there",
    says="{who} sends to the queue {queue!r}, which {key} does not have, and "
    "task_create_missing_queues is off: every call raises QueueNotFound.",
    remedy="Add it to {key}.",
)
def queues_that_are_missing(project: Project) -> Iterator[Found]:
    """E031: the caller gets an exception."""
    if not project.conf.task_create_missing_queues:
        yield from _undeclared(project)


def _texts(path: str) -> Iterator[tuple[int, str]]:
    file = source.parsed(path) if source.is_own(path) else None
    for node in ast.walk(file.tree) if file else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _undeclared(project: Project) -> Iterator[Found]:
    key = project.spelled("task_queues")
    queues = project.conf.task_queues
    if queues is None:
        return
    there = set(queues) if isinstance(queues, Mapping) else {q.name for q in queues}
    told: set[str] = set()
    for queue, who in used_queues(project):
        if queue not in there and queue not in told:
            told.add(queue)
            yield found(key, key=key, queue=queue, who=who)


def used_queues(project: Project) -> Iterator[tuple[str, str]]:
    """The queues that messages are sent to by name, and by whom."""
    name = "task_default_queue"
    if _is_default_queue_used(project):
        yield str(project.conf[name]), project.shown(name)
    for task, route in routes_in(project.conf.task_routes):
        if queue := queue_in(route):
            yield queue, f"The route of {task!r}"
    for view in project.tasks:
        if queue := queue_in(view.options):
            yield queue, f"The task {view.name}"
    for entry_name, entry in project.beat.items():
        options = entry.get("options") if isinstance(entry, Mapping) else None
        if queue := queue_in(options):
            yield queue, f"The beat entry {entry_name!r}"


def _is_default_queue_used(project: Project) -> bool:
    """Whether a task is sent there; where no queue is made, Celery asks for it at any call."""
    return not project.conf.task_create_missing_queues or any(
        queue_of(project.app, view.task) == "" for view in project.tasks
    )


def _is_accepted(serializer: Any, accepted: Any) -> bool:
    return _content_type(serializer) in map(_content_type, accepted or ())


def _content_type(name: Any) -> Any:
    try:
        return registry.name_to_type[name]
    except KeyError:
        return name


def _refused(
    obj: str, subject: str, serializer: Any, accept: str, accepted: Any, what: str
) -> Found:
    return found(
        obj,
        subject=subject,
        serializer=serializer,
        accept=accept,
        accepted=shown(accepted),
        what=what,
    )
