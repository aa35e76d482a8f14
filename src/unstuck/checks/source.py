"""The source of the project's functions, read and parsed once for each file.

Nothing is imported or run here. What comes from a package that is installed has no
source for us: it is not the project's to change. ``forget`` what was read in the end:
a worker that has checked itself shall not keep the source of its project in memory.
"""

from __future__ import annotations

import ast
import inspect
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
LOOPS = (ast.For, ast.AsyncFor, ast.While)

OURS = str(Path(__file__).parents[1])
INSTALLED = ("site-packages", "dist-packages", OURS, f"{sys.base_prefix}/lib/")
"""What is in the path of a file that is not the project's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call in the source of a function."""

    name: str
    """Dotted, imports resolved: ``redis.Redis().lock``, ``shop.tasks.send.delay().get``."""

    line: int
    node: ast.Call
    loops: bool
    """Whether it stands in a loop."""

    @property
    def keywords(self) -> Mapping[str, ast.expr]:
        """Its keyword arguments by name; ``**`` stands for those that cannot be seen."""
        return {keyword.arg or "**": keyword.value for keyword in self.node.keywords}


@dataclass(frozen=True, slots=True)
class Source:
    """A function as it stands in its file."""

    path: str
    node: Function
    imports: Mapping[str, str]
    calls: tuple[Call, ...]

    def where(self, line: int) -> str:
        """A place in the file, for a message."""
        return f"{self.path}:{line}"

    @property
    def text(self) -> str:
        """Its lines, with comments and docstring."""
        first, last = self.node.lineno, self.node.end_lineno
        return "\n".join(text_of(self.path).splitlines()[first - 1 : last])


@dataclass(frozen=True, slots=True)
class File:
    """A parsed file."""

    path: str
    tree: ast.Module
    imports: Mapping[str, str]
    functions: Mapping[int, Function]
    """By the line of the ``def``, and by that of its first decorator."""


def source_of(task: Any) -> Source | None:
    """The function that a task runs; ``None`` where it is not the project's or unknown."""
    run = getattr(task, "_orig_run", None) or getattr(task, "run", None)
    code = getattr(inspect.unwrap(run), "__code__", None) if callable(run) else None
    if code is None or not is_own(code.co_filename):
        return None
    return _source_at(code.co_filename, code.co_firstlineno)


def is_own(path: str) -> bool:
    """Whether a file is the project's, and of no package that is installed."""
    return not any(part in path for part in INSTALLED)


@cache
def text_of(path: str) -> str:
    """What stands in a file; nothing when it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def forget() -> None:
    """Let go of all that was read."""
    for kept in (text_of, parsed, _source_at):
        kept.cache_clear()


@cache
def parsed(path: str) -> File | None:
    """A file; ``None`` when it cannot be read as Python."""
    try:
        tree = ast.parse(text_of(path))
    except (SyntaxError, ValueError, RecursionError):
        return None
    functions: dict[int, Function] = {}
    imports: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            for line in (node.lineno, *(mark.lineno for mark in node.decorator_list)):
                functions[line] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.update(_named_by(node))
    return File(path=path, tree=tree, imports=imports, functions=functions)


def calls_below(
    node: ast.AST,
    imports: Mapping[str, str],
    skip: Callable[[ast.AST], bool] = lambda _: False,
) -> Iterator[Call]:
    """Every call in a piece of source, from the top down; not in parts to ``skip``."""
    stack = [(node, False)]
    while stack:
        each, loops = stack.pop()
        if isinstance(each, ast.Call):
            yield Call(dotted(each.func, imports), each.lineno, each, loops)
        inside = loops or isinstance(each, LOOPS)
        parts = [
            (part, inside) for part in ast.iter_child_nodes(each) if not skip(part)
        ]
        stack += reversed(parts)


def dotted(node: ast.AST, imports: Mapping[str, str]) -> str:
    """The name of an expression; ``?`` for a part that has none."""
    match node:
        case ast.Name(id=name):
            return imports.get(name, name)
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value, imports)}.{name}"
        case ast.Call(func=function):
            return f"{dotted(function, imports)}()"
        case _:
            return "?"


def number_in(node: ast.AST | None) -> float | None:
    """The number that an expression of numbers is, such as ``60 * 60``."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, other = number_in(left), number_in(right)
            return None if one is None or other is None else one * other
        case _:
            return None


@cache
def _source_at(path: str, line: int) -> Source | None:
    file = parsed(path)
    node = file.functions.get(line) if file else None
    if file is None or node is None:
        return None
    calls = tuple(
        call for part in node.body for call in calls_below(part, file.imports)
    )
    return Source(path=path, node=node, imports=file.imports, calls=calls)


def _named_by(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            home = "." * node.level + (node.module or "")
            joint = "" if home.endswith(".") else "."
            yield alias.asname or alias.name, f"{home}{joint}{alias.name}"
        elif alias.asname:
            yield alias.asname, alias.name
