"""Entries of the audit: who did what, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unstuck import conf
from unstuck.letters.redact import clean, storable
from unstuck.models import AuditEntry
from unstuck.recorder.sound import short


def record(
    what: str, target: str, *, who: str, why: str, details: Mapping[str, Any]
) -> AuditEntry:
    """Write an entry; of texts that no database takes, what can be written of them."""
    return AuditEntry.objects.using(conf.current().database).create(
        who=short(who),
        what=what,
        why=clean(why),
        target=short(target),
        details=storable(details),
    )
