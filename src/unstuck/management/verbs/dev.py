"""`manage.py unstuck dev`: everything a project needs to run, in one terminal."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from celery import Celery
from celery.app.utils import find_app
from django.conf import settings
from django.urls import NoReverseMatch, reverse

from unstuck.dev.errors import Asked, DevError, ProcessEnded
from unstuck.dev.lock import only_instance
from unstuck.dev.log import Log, wants_colour
from unstuck.dev.ports import HOST, answers, claim_is_possible, free_port
from unstuck.dev.processes import Processes
from unstuck.dev.valkey import ValkeyServer

HELP = (
    "embedded Valkey, migrations, worker, beat and web server in one terminal; "
    "Ctrl-C ends all of them"
)
OWN_NAMES = frozenset({"valkey", "migrate", "worker", "beat", "web"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `unstuck dev` to `parser`."""
    add = parser.add_argument
    add("--port", type=int, default=8000, help="of the web server (default 8000)")
    add("--valkey-port", type=int, help="of the embedded Valkey (default: a free one)")
    add("--app", help="of Celery, as in `celery -A` (default: the project's package)")
    add("--concurrency", type=int, default=8, help="of the worker (default: 8)")
    add("--pool", help="of the worker")
    add("--no-beat", action="store_true", help="start no celery beat")
    add(
        "--with",
        dest="extras",
        metavar="NAME=COMMAND",
        action="append",
        default=[],
        help="one more process to run beside them; may be repeated",
    )
    add(
        "--free-port",
        dest="free_ports",
        metavar="VARIABLE",
        action="append",
        default=[],
        help="an environment variable to set to a free port; may be repeated",
    )
    add(
        "--directory",
        type=Path,
        help="for Valkey's data, beat's schedule and the lock (default: .unstuck)",
    )


def run(options: dict[str, Any], out: TextIO) -> int:
    """Run the project until Ctrl-C: 0; 1 when a process ended, 2 on a bad start."""
    try:
        plan = _plan(options)
        with only_instance(plan.directory):
            claim_is_possible(plan.port, option="--port")
            claim_is_possible(plan.valkey.port, option="--valkey-port")
            with _processes(plan, out) as processes:
                _play(plan, processes)
    except DevError as error:
        return _complain(error, 2)
    except ProcessEnded as error:
        return _complain(error, 1)
    except (Asked, KeyboardInterrupt):  # the latter before there are any processes
        return 0
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    app: str
    port: int
    valkey: ValkeyServer
    directory: Path
    project: Path
    environment: dict[str, str]
    worker: list[str]
    """What the options add to the worker's command line."""
    beat: bool
    extras: dict[str, list[str]]


def _plan(options: dict[str, Any]) -> _Plan:
    extras = _extras(options["extras"])
    project = _project_directory()
    directory = (options["directory"] or project / ".unstuck").resolve()
    port = options["valkey_port"] or free_port()
    valkey = ValkeyServer(directory / "valkey", port)
    app = options["app"] or settings.ROOT_URLCONF.partition(".")[0]
    return _Plan(
        app=app,
        port=options["port"],
        valkey=valkey,
        directory=directory,
        project=project,
        environment=_environment(_celery(app), valkey, options["free_ports"]),
        worker=_worker_options(options),
        beat=not options["no_beat"],
        extras=extras,
    )


@contextmanager
def _processes(plan: _Plan, out: TextIO) -> Iterator[Processes]:
    log = Log(out, colour=wants_colour(out, os.environ))
    with Processes(log, env=plan.environment, cwd=plan.project) as processes:
        try:
            yield processes
        except Asked:
            log.say("unstuck dev: ending everything (Ctrl-C again to kill)")
            raise


def _play(plan: _Plan, processes: Processes) -> None:
    where = f"on {HOST}:{plan.valkey.port}, its log is {plan.valkey.log}"
    processes.log.write("valkey", where)
    processes.start("valkey", plan.valkey.command, support=True)
    processes.wait_until(plan.valkey.answers)
    processes.run("migrate", _manage("migrate", "--verbosity", "1"))
    processes.start("worker", [*_celery_command(plan), "worker", *plan.worker])
    if plan.beat:
        schedule = str(plan.directory / "beat-schedule")
        processes.start("beat", [*_celery_command(plan), "beat", "-s", schedule])
    address = f"{HOST}:{plan.port}"
    processes.start("web", [sys.executable, "-m", "unstuck.dev.web", address])
    for name, command in plan.extras.items():
        processes.start(name, command)
    processes.wait_until(lambda: answers(plan.port))
    where = " and ".join(f"http://{address}{path}" for path in ("/", *_dashboard()))
    processes.log.say(f"unstuck dev: {where} (Ctrl-C ends all)")
    processes.wait_until(lambda: False)


def _dashboard() -> tuple[str, ...]:
    """Where the project has our pages, if it has them."""
    try:
        return (reverse("unstuck:overview"),)
    except NoReverseMatch:
        return ()


def _complain(error: Exception, status: int) -> int:
    sys.stderr.write(f"unstuck dev: {error}\n")
    return status


def _celery(app: str) -> Celery:
    try:
        found: Celery = find_app(app)
    except (ImportError, AttributeError) as error:
        msg = f"no Celery application in {app!r} ({error}); name it with --app"
        raise DevError(msg) from error
    return found


def _environment(
    app: Celery, valkey: ValkeyServer, free_ports: list[str]
) -> dict[str, str]:
    """Our own environment with the embedded Valkey in it.

    Celery reads these two variables before any setting, whatever its namespace.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "CELERY_BROKER_URL": _scheme(app) + valkey.url(0).removeprefix("redis"),
    }
    if "redis" in (app.conf.result_backend or "").partition(":")[0]:
        environment["CELERY_RESULT_BACKEND"] = valkey.url(1)
    return environment | {name: str(free_port()) for name in free_ports}


def _scheme(app: Celery) -> str:
    """The project's own way to talk to a Redis; ours when it uses another broker."""
    scheme: str = (app.conf.broker_url or "").partition(":")[0]
    return scheme if scheme in {"redis", "unstuck+redis"} else "unstuck+redis"


def _worker_options(options: dict[str, Any]) -> list[str]:
    words = ["-l", "info", "--concurrency", str(options["concurrency"])]
    if options["pool"] is not None:
        words += ["--pool", options["pool"]]
    return words


def _extras(pairs: list[str]) -> dict[str, list[str]]:
    extras: dict[str, list[str]] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        command = _words(text)
        if not re.fullmatch(r"[\w-]+", name) or not command:
            raise DevError(f"--with wants NAME=COMMAND, not {pair!r}")
        if name in extras or name in OWN_NAMES:
            raise DevError(f"--with {pair!r}: there is a process {name!r} already")
        extras[name] = command
    return extras


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is not closed
        return []


def _celery_command(plan: _Plan) -> list[str]:
    # Quiet is without the banner, not without the log.
    return [sys.executable, "-m", "celery", "--quiet", "-A", plan.app]


def _manage(*words: str) -> list[str]:
    """The command line of another management command of this project."""
    script = _manage_py()
    return [sys.executable, *([str(script)] if script else ["-m", "django"]), *words]


def _project_directory() -> Path:
    """Where manage.py is, so that `celery -A` finds the project too."""
    script = _manage_py()
    return script.parent if script else Path.cwd()


def _manage_py() -> Path | None:
    script = Path(sys.argv[0]).resolve()
    return script if script.name == "manage.py" else None
