"""W009: tasks that take locks which outlive or do not last as long as they.

It reads the source of the function that a task runs, not what that calls, and leaves out
what is installed: that is not the project's to change.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from django.core.cache import cache, caches
from django.core.checks import CheckMessage, Warning

from unstuck.checks.source import source_of

CACHE = "django.core.cache"
LOCKING = ("redis", "valkey", "django_redis", "redis_lock", "redlock", "pottery", CACHE)
"""What has locks with a timeout and no more."""

TELLING = ("redis", "valkey", "cache")
"""What such a thing is called where nobody can see what it is."""


@dataclass(frozen=True, slots=True)
class ForeignLock:
    """A lock that is taken in the source of a task."""

    call: str
    """As it is written, without its arguments."""

    name: str
    """Of the lock, where it is written out."""

    where: str
    """File and line."""


def messages(task: Any) -> Iterator[CheckMessage]:
    """One for each such lock in the source of this task."""
    for found in foreign_locks(task):
        name = found.name or "NAME"
        yield Warning(
            f"The task {task.name} takes a lock by {found.call}(…) ({found.where}): when "
            f"the task outlives the timeout, a second one runs beside it and the first "
            f"frees the lock of the second; when its process is killed, all others are "
            f"kept out until the timeout.",
            hint=f'Write @shared_task(lock="{name}", on_busy="skip"), or '
            f'`with unstuck.lock("{name}"):` in the task. Their lease is renewed while the '
            f"task runs, and they are free when it is dead. See docs/locks.md.",
            obj=task.name,
            id="unstuck.W009",
        )


def foreign_locks(task: Any) -> list[ForeignLock]:
    """Those that the task takes; none where its source cannot be had."""
    source = source_of(task)
    if source is None:
        return []
    run = inspect.unwrap(getattr(task, "_orig_run", None) or task.run)
    origins = _Origins(source.node, getattr(run, "__globals__", {}))
    found = {
        call.lineno: ForeignLock(
            ast.unparse(call.func), _name_in(call), source.where(call.lineno)
        )
        for call in origins.calls
        if _takes_lock(call, origins)
    }
    return [found[line] for line in sorted(found)]


class _Origins:
    """Which module the values come from that a piece of source names."""

    def __init__(self, tree: ast.AST, known: Mapping[str, Any]) -> None:
        nodes = list(ast.walk(tree))
        self.calls = [node for node in nodes if isinstance(node, ast.Call)]
        self._globals = known
        self._locals: dict[str, str] = {}
        for node in nodes:
            self._locals.update(_imported(node))
        for node in nodes:
            self._locals.update(self._assigned(node))

    def of(self, node: ast.AST) -> str:
        """The dotted name of what an expression comes from; empty if nobody knows."""
        match node:
            case ast.Name(id=name) if name in self._locals:
                return self._locals[name]
            case ast.Name(id=name) if name in self._globals:
                return _origin_of(self._globals[name])
            case ast.Attribute(value=value, attr=name):
                home = self.of(value)
                return f"{home}.{name}" if home else ""
            case ast.Call(func=inner) | ast.Subscript(value=inner):
                return self.of(inner)
            case _:
                return ""

    def _assigned(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, self.of(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, self.of(value)
            case ast.withitem(context_expr=value, optional_vars=ast.Name(id=name)):
                yield name, self.of(value)


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0], alias.name
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module or ''}.{alias.name}"


def _origin_of(value: Any) -> str:
    if value is cache or value is caches:
        return CACHE
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _takes_lock(call: ast.Call, origins: _Origins) -> bool:
    match call.func:
        case ast.Attribute(value=value, attr="lock"):
            return _has_locks(origins.of(value)) or _tells(value, origins)
        case ast.Attribute(value=value, attr="add"):
            return _is_cache(origins.of(value)) and _is_deleted(call, origins)
        case ast.Name() | ast.Attribute() as made:
            origin = origins.of(made)
            return _has_locks(origin) and origin.lower().endswith("lock")
        case _:
            return False


def _has_locks(origin: str) -> bool:
    return any(origin == home or origin.startswith(f"{home}.") for home in LOCKING)


def _is_cache(origin: str) -> bool:
    return origin == CACHE or origin.startswith(f"{CACHE}.")


def _tells(value: ast.expr, origins: _Origins) -> bool:
    if origins.of(value):
        return False
    last = ast.unparse(value).lower().rpartition(".")[2]
    return any(word in last for word in TELLING)


def _is_deleted(added: ast.Call, origins: _Origins) -> bool:
    """Whether a key is added and deleted again, which makes a lock of it."""
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "delete"
        and _is_cache(origins.of(call.func.value))
        and [ast.dump(key) for key in call.args[:1]]
        == [ast.dump(key) for key in added.args[:1]]
        for call in origins.calls
    )


def _name_in(call: ast.Call) -> str:
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return argument.value
    return ""
