"""Which Celery app this process runs in."""

from __future__ import annotations

from typing import Any

import celery
from celery import _state


def current_app() -> Any | None:
    """The app in use, whoever's it is; ``None`` when the project imports none."""
    app = celery.current_app._get_current_object()
    if not _is_fallback(app):
        return app
    # "Current" belongs to a thread: one that Celery has not met gets its fallback.
    own = [known for known in _state._get_active_apps() if not _is_fallback(known)]
    return own[0] if len(own) == 1 else None


def _is_fallback(app: Any) -> bool:
    """Whether Celery made this app because nobody else had made one."""
    return bool(app.main == "default" and not app.set_as_current)
