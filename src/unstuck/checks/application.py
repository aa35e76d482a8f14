"""Rules for the Celery app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Warning

from unstuck import project


def messages(app: Any | None) -> Iterator[CheckMessage]:
    """W003: the app in use is Celery's own, so that nothing of unstuck is in force.

    Silent where there is no app at all, as in a project that only reads our tables.
    """
    if app is not None:
        yield Warning(
            f"{project.not_ours(app)} None of its tasks is guarded.",
            hint=project.swap(app),
            obj=app.main,
            id="unstuck.W003",
        )
