"""Static checks for ``manage.py check``; nothing here connects to anything.

Each rule is a row of ``rule.TABLE`` with an id of its own; ids are never used again for
something else. ``docs/checks.md`` has an anchor for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks

TAG = "unstuck"


def register() -> None:
    """Register the checks with Django; a second time changes nothing."""
    checks.register(check, TAG)


def check(**_: Any) -> list[checks.CheckMessage]:
    """Everything that is wrong with how this project uses unstuck."""
    return list(_messages())


def _messages() -> Iterator[checks.CheckMessage]:
    # Django imports this module while it still loads the apps.
    from unstuck import project
    from unstuck.app import Celery
    from unstuck.checks import source
    from unstuck.checks.rule import run
    from unstuck.checks.table import TABLE
    from unstuck.checks.view import Project

    app = project.current_app()
    ours = isinstance(app, Celery)
    view = Project.of(app) if ours else Project(app)
    everywhere = ours and view.read_error is None
    rules = [rule for rule in TABLE.values() if everywhere or rule.anywhere]
    try:
        yield from run(rules, view)
    finally:
        source.forget()
