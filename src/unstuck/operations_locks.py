"""What an operator can do to locks; every deed leaves an audit entry.

The command line, the admin and the dashboard call these functions and no others.
"""

from __future__ import annotations

import difflib
from typing import Any

from unstuck import conf
from unstuck.core.errors import LocksUnreachable, ReleaseError
from unstuck.locks import backends
from unstuck.locks.backend import Held, Owner
from unstuck.models import AuditEntry

RELEASE = "release lock"


def held_locks() -> list[Held]:
    """All locks that are held now, by name. Raises ``LocksUnreachable``."""
    return backends.current().all_held()


def release_lock(name: str, *, who: str, why: str) -> Held:
    """Take a lock from whoever holds it; who that was.

    The holder is told by ``LockLost``, with who did it and why, when it asks, or at the
    end of its block; nothing stops it before. Raises ``ReleaseError`` without a reason and for a lock that nobody
    holds; then nothing has changed. Raises ``LocksUnreachable`` when nobody can say whether
    it was released, and the audit entry says that.
    """
    if not why.strip():
        raise ReleaseError(
            f"To release the lock {name!r} needs a reason, because its holder may still "
            f"be at work."
        )
    # First, and with nothing but a name: what is done must be written somewhere.
    entry = AuditEntry.objects.using(conf.current().database).create(
        who=who[:255], what=RELEASE, why=why, target=name[:255], details={"lock": name}
    )
    try:
        held = backends.current().evict(name, f"{who}: {why}")
        if held is None:
            raise _not_held(name)
    except LocksUnreachable as error:
        entry.details = {"lock": name, "unknown": str(error)}
        entry.save()
        raise
    except BaseException:
        entry.delete()
        raise
    entry.details = {"lock": name, "fence": held.fence, "holder": facts_of(held.owner)}
    entry.save()
    return held


def facts_of(owner: Owner) -> dict[str, Any]:
    """Who that is, for people and programs."""
    return {
        "task_name": owner.task_name,
        "task_id": owner.task_id,
        "node": owner.node,
        "pid": owner.pid,
    }


def _not_held(name: str) -> ReleaseError:
    names = [held.name for held in held_locks()]
    near = difflib.get_close_matches(name, names, n=1)
    remedy = (
        f"Did you mean {near[0]!r}?"
        if near
        else "`manage.py unstuck locks list` shows those that are held."
    )
    return ReleaseError(f"Nobody holds a lock {name!r}. {remedy}")
