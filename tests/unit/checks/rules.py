"""Small example projects, and what one rule finds in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from django.core.checks import CheckMessage
from django.test import override_settings

from unstuck import Celery
from unstuck.checks.rule import run
from unstuck.checks.table import TABLE
from unstuck.checks.view import Project


@dataclass(frozen=True)
class Site:
    """A project as it stands in its files."""

    celery: Mapping[str, Any] = field(default_factory=dict)
    """Django's settings for Celery, without their prefix."""

    tasks: Sequence[tuple[Callable[..., Any], Mapping[str, Any]]] = ()
    django: Mapping[str, Any] = field(default_factory=dict)
    namespace: str | None = "CELERY"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What is set on ``app.conf``."""

    def app(self) -> Celery:
        """Its Celery app, with its tasks."""
        app = Celery("sample", set_as_current=False)
        given = {"BROKER_URL": "memory://", **self.celery}
        source = {f"CELERY_{key}": value for key, value in given.items()}
        extra = {"TIME_ZONE": self.django.get("TIME_ZONE", "UTC")}
        app.config_from_object(
            SimpleNamespace(**source, **extra), namespace=self.namespace
        )
        app.conf.update(self.changes)
        for function, options in self.tasks:
            name = options.get("name", f"sample.{function.__name__}")
            given = {key: value for key, value in options.items() if key != "name"}
            app.task(name=name, shared=False, **given)(function)
        return app


def found_by(number: str, site: Site, **parts: Any) -> list[CheckMessage]:
    """What one rule, alone, finds in a project; ``parts`` are put into the view of it."""
    given = {key: said for key, said in site.django.items() if key != "DATABASES"}
    with override_settings(**given):
        view = Project.of(site.app())
        if "DATABASES" in site.django:
            # Django warns of tests that override this one.
            view.__dict__["databases"] = site.django["DATABASES"]
        view.__dict__.update(parts)
        return list(run([TABLE[number]], view))


def all_found(site: Site) -> list[CheckMessage]:
    """What all rules find in a project."""
    return list(run(TABLE.values(), Project.of(site.app())))
