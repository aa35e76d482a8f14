"""What the rules look at: the project as it is, gathered once and not changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from celery.app.defaults import _TO_NEW_KEY
from django.apps import apps
from django.conf import settings

from unstuck import configuration, profile, project
from unstuck.addresses import safe
from unstuck.checks.source import Call, Source, is_own, source_of
from unstuck.configuration import MISSING, given
from unstuck.core.limits import Limits
from unstuck.core.settings import SECRET_SETTINGS
from unstuck.letters.redact import redacted_kwargs
from unstuck.project import spelled
from unstuck.worker.task import OPTIONS, Task, own_tasks

LONGEST = 120
"""Characters of a value that a message shows."""

MOST_FILES = 2000
"""As many files of the project are looked at."""


def shown(value: Any, key: str = "") -> str:
    """A value for a message: short, and without what is secret."""
    text = repr(safe(redacted_kwargs({key: value}, SECRET_SETTINGS)[key]))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


@dataclass(frozen=True, slots=True)
class Written:
    """One setting as the project wrote it."""

    key: str
    name: str
    """Celery's name of it, if it were one; lower case, without the prefix."""

    value: Any


@dataclass(frozen=True)
class TaskView:
    """One task of the project."""

    name: str
    task: Any

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """What the task itself says, by option."""
        said: dict[str, Any] = {}
        for base in reversed(type(self.task).__mro__):
            if base.__module__.partition(".")[0] not in (
                "celery",
                "unstuck",
                "builtins",
            ):
                said.update(_public(base))
        own = getattr(self.task, "said", {})
        return {
            **{name: value for name, value in said.items() if name not in OPTIONS},
            **own,
        }

    @cached_property
    def own_limits(self) -> Limits:
        """The time limits that the task itself gives."""
        return own_limits(self.task)

    @cached_property
    def source(self) -> Source | None:
        """Where it stands in the project's files."""
        return source_of(self.task)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call in its source."""
        return self.source.calls if self.source else ()

    def at(self, line: int) -> str:
        """A place in its source."""
        return self.source.where(line) if self.source else self.name


def own_limits(task: Any) -> Limits:
    """What a task itself says of its limits."""
    limits: Limits = task.own_limits() if isinstance(task, Task) else Limits()
    return limits


def _public(cls: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("_") and name not in ("app", "name", "run", "said")
    }


@dataclass(frozen=True)
class Project:
    """The Celery app of a Django project, its settings and its tasks."""

    app: Any
    load_error: Exception | None = None
    """Why its tasks could not be imported."""

    read_error: Exception | None = None
    """Why its settings could not be read."""

    @classmethod
    def of(cls, app: Any) -> Project:
        """Gather it, with the tasks that a worker would know."""
        try:
            project.loaded_conf(app)
        except Exception as error:
            return cls(app, read_error=error)
        try:
            project.load_tasks(app)
            app.finalize(auto=True)
        except Exception as error:
            return cls(app, load_error=error)
        return cls(app)

    @property
    def conf(self) -> Any:
        """The settings in force: ``conf[name]``, or ``conf.name``."""
        return self.app.conf

    @property
    def django(self) -> Any:
        """Django's settings."""
        return settings

    def given(self, name: str) -> Any:
        """What the project itself says of a Celery setting, or ``MISSING``."""
        return given(self.conf, name)

    def says(self, name: str) -> bool:
        """Whether the project itself says anything of it."""
        return self.given(name) is not MISSING

    def spelled(self, name: str) -> str:
        """A Celery setting as this project writes it."""
        return spelled(self.conf, name)

    def shown(self, name: str) -> str:
        """A setting in force, for a message: ``CELERY_TIMEZONE = 'UTC'``."""
        return f"{self.spelled(name)} = {shown(self.conf[name], name)}"

    @cached_property
    def written(self) -> tuple[Written, ...]:
        """Every key in what the app takes its settings from, those of others included."""
        return tuple(self._written())

    def _written(self) -> Iterator[Written]:
        prefix = (self.conf.prefix or "").lower()
        for key, value in configuration.written(self.conf):
            name = key.lower()
            if prefix and name.startswith(prefix):
                name = name.removeprefix(prefix)
            elif key in _TO_NEW_KEY:
                name = _TO_NEW_KEY[key]
            elif key.startswith("CELERY_"):
                name = name.removeprefix("celery_")
            yield Written(key, name, value)

    @cached_property
    def tasks(self) -> tuple[TaskView, ...]:
        """The tasks of the app that are not Celery's, by name."""
        return tuple(TaskView(task.name, task) for task in own_tasks(self.app))

    @cached_property
    def databases(self) -> Mapping[str, Mapping[str, Any]]:
        """Django's databases by their aliases."""
        databases: Mapping[str, Mapping[str, Any]] = settings.DATABASES
        return databases

    @cached_property
    def beat(self) -> Mapping[str, Any]:
        """The schedule of beat, as the settings have it."""
        schedule = self.conf.beat_schedule
        return schedule if isinstance(schedule, Mapping) else {}

    # The broker.

    @cached_property
    def broker_urls(self) -> tuple[str, ...]:
        """Where the broker is, and those to fail over to."""
        url = self.conf.broker_read_url or self.conf.broker_url or "amqp://"
        urls = url.split(";") if isinstance(url, str) else url
        return tuple(str(each) for each in urls)

    @property
    def broker(self) -> str:
        """By which scheme the broker is reached."""
        return profile.scheme_of(self.broker_urls)

    @property
    def is_amqp(self) -> bool:
        """Whether it is a RabbitMQ."""
        return profile.is_amqp(self.broker_urls)

    @property
    def keeps_leases(self) -> bool:
        """Whether it is reached by our own transport."""
        return profile.keeps_leases(self.broker_urls)

    @cached_property
    def broker_options(self) -> Mapping[str, Any]:
        """The options of the transport that are in force."""
        options = self.conf.broker_transport_options
        return options if isinstance(options, Mapping) else {}

    # The files.

    @cached_property
    def app_modules(self) -> tuple[ModuleType, ...]:
        """The modules of the project that have the app."""
        return tuple(
            module
            for module in _own_modules()
            if any(value is self.app for value in list(vars(module).values()))
        )

    @cached_property
    def config_modules(self) -> tuple[ModuleType, ...]:
        """Where the project configures Celery: its settings, and where the app is made."""
        found = {module.__name__: module for module in self.app_modules}
        if self.settings_module is not None:
            found[self.settings_module.__name__] = self.settings_module
        return tuple(found[name] for name in sorted(found))

    @cached_property
    def settings_module(self) -> ModuleType | None:
        """Django's settings as they stand in their file."""
        name = getattr(settings, "SETTINGS_MODULE", None)
        return sys.modules.get(name) if name else None

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The files of the Django apps that are the project's own, tests left out."""
        paths = (
            path
            for config in apps.get_app_configs()
            if is_own(f"{config.path}/")
            for path in sorted(Path(config.path).rglob("*.py"))
            if not {"migrations", "tests"} & set(path.parts)
            and not path.name.startswith(("test_", "tests.", "conftest."))
        )
        return tuple(dict.fromkeys(map(str, islice(paths, MOST_FILES))))


def _own_modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        # Asking a module itself could make a lazy one import what it stands for.
        path = getattr(module, "__dict__", {}).get("__file__")
        if path and name != "__main__" and is_own(path):
            yield module
