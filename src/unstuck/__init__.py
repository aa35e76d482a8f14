"""unstuck: every task ends, every message is accounted for.

Swap ``from celery import Celery`` for ``from unstuck import Celery`` and add
``"unstuck"`` to ``INSTALLED_APPS``.
"""

from unstuck.app import Celery
from unstuck.core.errors import (
    BrokerUnreachable,
    NotAllSent,
    OutboxError,
    OutboxFull,
    ReplayError,
    SettingsError,
    UnstuckError,
)

__version__ = "0.1.0"

__all__ = [
    "BrokerUnreachable",
    "Celery",
    "NotAllSent",
    "OutboxError",
    "OutboxFull",
    "ReplayError",
    "SettingsError",
    "UnstuckError",
]
