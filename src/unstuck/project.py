"""The Celery app of the project that this process runs in."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any
from weakref import WeakSet

import celery

from unstuck.app import Celery
from unstuck.core.errors import NoApp
from unstuck.current import current_app as current_app

logger = logging.getLogger(__name__)

_asked_for_tasks: WeakSet[Any] = WeakSet()

SKIP_CHECKS = "CELERY_SKIP_CHECKS"


def our_app() -> Celery:
    """The app in use. Raises ``NoApp``, saying what to do, when it is not ours."""
    app = current_app()
    if app is None:
        raise NoApp(
            "No Celery app is loaded. Import it in the __init__.py of the project's "
            "package: from .celery import app as celery_app"
        )
    if not isinstance(app, Celery):
        raise NoApp(f"{not_ours(app)} {swap(app)}")
    return app


def not_ours(app: Any) -> str:
    """Which app is in use and why unstuck can do nothing for it."""
    kind = f"{type(app).__module__}.{type(app).__qualname__}"
    return f"The Celery app {app.main!r} is a {kind} and not an unstuck.Celery."


def swap(app: Any) -> str:
    """What to change so that ``app`` becomes ours."""
    if type(app) is not celery.Celery:
        return f"Derive {type(app).__qualname__} from unstuck.Celery."
    module = _where_it_is_made(app)
    place = f"In {module}, write" if module else "Where it is made, write"
    return f"{place} `from unstuck import Celery` for `from celery import Celery`."


def home_of(app: Any) -> str:
    """A module that has the app, for another process to import; empty if none has."""
    own = [
        name
        for name, module in list(sys.modules.items())
        if not name.startswith(("__", "celery.", "unstuck."))
        if any(value is app for value in list(getattr(module, "__dict__", {}).values()))
    ]
    return min(own, key=len, default="")


def load_tasks(app: Any) -> None:
    """Import the modules that a worker would import for their tasks.

    Raises whatever those modules raise.
    """
    before = os.environ.get(SKIP_CHECKS)
    # Celery answers this import with a run of all system checks, of which we may
    # be one ourselves.
    os.environ[SKIP_CHECKS] = "1"
    try:
        app.loader.import_default_modules()
    finally:
        if before is None:
            del os.environ[SKIP_CHECKS]
        else:
            os.environ[SKIP_CHECKS] = before


def task_of(app: Any, name: str) -> Any | None:
    """The task of this name; ``None`` where this process has no code for it.

    The modules of the tasks are imported first, once: a web process has not done so.
    """
    if name not in app.tasks and app not in _asked_for_tasks:
        _asked_for_tasks.add(app)
        try:
            load_tasks(app)
        except Exception:
            # Modules of the project: they may raise whatever they like.
            logger.warning("The tasks of the project cannot be imported", exc_info=True)
    return app.tasks.get(name)


def loaded_conf(app: Any) -> Any:
    """The configuration of an app, which Celery reads only when somebody asks."""
    app.conf.get("broker_url")
    return app.conf


def spelled(conf: Any, name: str) -> str:
    """The name of a Celery setting as this project writes it."""
    prefix: str = conf.prefix or ""
    return (prefix + name).upper() if prefix else name


def _where_it_is_made(app: Any) -> str:
    for name, module in list(sys.modules.items()):
        names = getattr(module, "__dict__", {})
        if names.get("Celery") is celery.Celery and any(
            value is app for value in list(names.values())
        ):
            return name
    return ""
