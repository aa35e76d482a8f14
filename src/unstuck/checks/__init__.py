"""Static checks for ``manage.py check``; nothing here connects to anything.

Each rule is a function that yields messages with an id of its own; ids are never used
again for something else. ``docs/checks.md`` lists them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks

TAG = "unstuck"


def register() -> None:
    """Register the checks with Django."""
    checks.register(check, TAG)


def check(**_: Any) -> list[checks.CheckMessage]:
    """Everything that is wrong with how this project uses unstuck."""
    return list(_messages())


def _messages() -> Iterator[checks.CheckMessage]:
    # Django imports this module while it still loads the apps.
    from unstuck import project
    from unstuck.app import Celery
    from unstuck.checks import application, broker, limits, tasks, unstuck_settings

    yield from unstuck_settings.messages()
    app = project.current_app()
    if not isinstance(app, Celery):
        yield from application.messages(app)
        return
    conf = project.loaded_conf(app)
    wrong = list(limits.wrong_types(conf))
    yield from wrong
    if not wrong:
        # Limits of the wrong type can be compared neither here nor by the tasks.
        yield from limits.messages(conf)
        yield from tasks.messages(app)
        yield from broker.messages(app)
