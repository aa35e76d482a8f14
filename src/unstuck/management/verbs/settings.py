"""``manage.py unstuck settings``: each value in force and where it came from."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TextIO

from unstuck import conf, configuration, project
from unstuck.addresses import safe
from unstuck.configuration import InForce
from unstuck.core import alerts
from unstuck.core.errors import UnstuckError
from unstuck.core.settings import SECRET_SETTINGS, problems_in
from unstuck.letters.redact import redacted_kwargs, storable
from unstuck.management.verbs._output import print_json, print_table
from unstuck.management.verbs._task_options import (
    in_force_for,
    said_by,
    unstuck_settings,
)
from unstuck.worker.task import own_tasks

HELP = "each setting in force and where its value came from"

HEADINGS = ("setting", "value", "source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``unstuck settings``."""
    parser.add_argument(
        "--task", metavar="NAME", help="everything in force for this one task"
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Print the settings: 0; 1 when ``UNSTUCK`` has values that cannot be used."""
    app = project.our_app()
    project.load_tasks(app)
    if options["task"]:
        _show_task(_task(app, options["task"]), options["json"], out)
    else:
        _show_all(app, options["json"], out)
    problems = problems_in(conf.given())
    for problem in problems:
        sys.stderr.write(f"Error: {problem}\n")
    return 1 if problems else 0


def _show_all(app: Any, as_json: bool, out: TextIO) -> None:
    celery = list(configuration.in_force(app.conf))
    ours = list(unstuck_settings())
    tasks = {task.name: said_by(task) for task in own_tasks(app)}
    if as_json:
        speaking = {
            name: _task_json(app.tasks[name], said)
            for name, said in tasks.items()
            if said
        }
        data = {"celery": _rows(celery), "unstuck": _rows(ours), "tasks": speaking}
        print_json(data, out)
        return
    spelled = [replace(row, name=_spelled(app.conf, row.name)) for row in celery]
    _print("Celery", spelled, out)
    _print("UNSTUCK", ours, out)
    _print_tasks(app, tasks, out)


def _spelled(conf: Any, name: str) -> str:
    setting, bracket, option = name.partition("[")
    return f"{project.spelled(conf, setting)}{bracket}{option}"


def _show_task(task: Any, as_json: bool, out: TextIO) -> None:
    rows = list(in_force_for(task))
    if as_json:
        print_json({"task": task.name, "in_force": _rows(rows)}, out)
    else:
        _print(task.name, rows, out)


def _task(app: Any, name: str) -> Any:
    if name in app.tasks:
        return app.tasks[name]
    near = difflib.get_close_matches(name, app.tasks, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else "See `unstuck settings`."
    raise UnstuckError(f"There is no task {name!r}. {remedy}")


def _print(title: str, rows: Iterable[InForce], out: TextIO) -> None:
    out.write(f"{title}\n")
    cells = [(row.name, _shown(row), row.source) for row in rows]
    print_table(HEADINGS, cells, out)
    out.write("\n")


def _print_tasks(app: Any, tasks: dict[str, dict[str, Any]], out: TextIO) -> None:
    cells = []
    for name, said in tasks.items():
        if said:
            words = " ".join(f"{option}={value!r}" for option, value in said.items())
            cells.append((name, words, _limits(app.tasks[name])))
    silent = len(tasks) - len(cells)
    out.write("Tasks that say something of their own\n")
    if cells:
        print_table(("task", "says", "limits in force (soft/hard)"), cells, out)
    out.write(f"{silent} of {len(tasks)} tasks say nothing and get what is above.\n")


def _task_json(task: Any, said: dict[str, Any]) -> dict[str, Any]:
    limits = {"time_limit": task.time_limit, "soft_time_limit": task.soft_time_limit}
    return {"says": storable(said), "limits_in_force": limits}


def _limits(task: Any) -> str:
    soft, hard = (
        "none" if seconds is None else f"{seconds:g} s"
        for seconds in (task.soft_time_limit, task.time_limit)
    )
    return f"{soft} / {hard}"


def _rows(rows: Iterable[InForce]) -> list[dict[str, Any]]:
    return [
        {"name": row.name, "value": storable(_safe(row)), "source": row.source}
        for row in rows
    ]


def _shown(row: InForce) -> str:
    value = _safe(row)
    return value if isinstance(value, str) else repr(value)


def _safe(row: InForce) -> Any:
    """The value without passwords, also those within URLs."""
    if row.name == "ALERTS":
        return alerts.shown(row.value)
    return safe(redacted_kwargs({row.name: row.value}, SECRET_SETTINGS)[row.name])
