"""What an operator can do to locks; every deed leaves an audit entry.

The command line, the admin and the dashboard call these functions and no others.
"""

from __future__ import annotations

import difflib
from typing import Any

from unstuck import audit
from unstuck.core.errors import ReleaseError
from unstuck.letters.redact import clean
from unstuck.locks import backends
from unstuck.locks.backend import Held, Owner

RELEASE = "release lock"


def held_locks() -> list[Held]:
    """All locks that are held now, by name. Raises ``LocksUnreachable``."""
    return backends.current().all_held()


def release_lock(name: str, *, who: str, why: str, fence: int | None = None) -> Held:
    """Take a lock from whoever holds it, or from the holder with ``fence``; who that was.

    The holder is told by ``LockLost``, with who did it and why, when it asks, or at the
    end of its block; nothing stops it before. Raises ``ReleaseError`` without a reason and for a lock that nobody
    holds, or somebody else than was meant; then nothing has changed. Raises ``LocksUnreachable`` when nobody can say whether
    it was released, and the audit entry says that.
    """
    if not why.strip():
        raise ReleaseError(
            f"To release the lock {name!r} needs a reason, because its holder may still "
            f"be at work."
        )
    details = {"lock": name}
    with audit.recorded(RELEASE, name, who=who, why=why, details=details) as deed:
        deed.begins()
        held = backends.current().evict(name, clean(f"{who}: {why}"), fence=fence)
        deed.ends()
        if held is None:
            raise _not_held(name) if fence is None else _changed_hands(name, fence)
        deed.details |= {"fence": held.fence, "holder": facts_of(held.owner)}
    return held


def facts_of(owner: Owner) -> dict[str, Any]:
    """Who that is, for people and programs."""
    return {
        "task_name": owner.task_name,
        "task_id": owner.task_id,
        "node": owner.node,
        "pid": owner.pid,
    }


def _changed_hands(name: str, fence: int) -> ReleaseError:
    return ReleaseError(
        f"The lock {name!r} is no longer held by fence {fence}. Look again before you "
        f"release it."
    )


def _not_held(name: str) -> ReleaseError:
    names = [held.name for held in held_locks()]
    near = difflib.get_close_matches(name, names, n=1)
    remedy = (
        f"Did you mean {near[0]!r}?"
        if near
        else "`manage.py unstuck locks list` shows those that are held."
    )
    return ReleaseError(f"Nobody holds a lock {name!r}. {remedy}")
