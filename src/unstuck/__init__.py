"""unstuck: every task ends, every message is accounted for.

Swap ``from celery import Celery`` for ``from unstuck import Celery`` and add
``"unstuck"`` to ``INSTALLED_APPS``.

The public names are imported when they are asked for: ``unstuck probe`` needs none of
them, and so neither Celery nor Django.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unstuck.app import Celery
    from unstuck.core.errors import (
        BrokerUnreachable,
        DeadlockDetected,
        LockBusy,
        LockError,
        LockLost,
        LocksUnreachable,
        NotAllSent,
        OutboxError,
        OutboxFull,
        ReplayError,
        SettingsError,
        UnstuckError,
    )
    from unstuck.locks.lock import lock

__version__ = "0.1.0"

HOMES = {"Celery": "unstuck.app", "lock": "unstuck.locks.lock"}
"""Where those names are at home that are not of errors."""

__all__ = [
    "BrokerUnreachable",
    "Celery",
    "DeadlockDetected",
    "LockBusy",
    "LockError",
    "LockLost",
    "LocksUnreachable",
    "NotAllSent",
    "OutboxError",
    "OutboxFull",
    "ReplayError",
    "SettingsError",
    "UnstuckError",
    "lock",
]


def __getattr__(name: str) -> Any:
    """Import a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Celery":
        # Also for a project whose INSTALLED_APPS lack "unstuck": a check tells.
        importlib.import_module("unstuck.checks").register()
    module = importlib.import_module(HOMES.get(name, "unstuck.core.errors"))
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
