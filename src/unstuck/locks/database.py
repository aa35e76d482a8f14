"""Locks in the Django database: rows, on connections of our own."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from django.db import Error

from unstuck.core.errors import LockError, LocksUnreachable
from unstuck.locks import statements as sql
from unstuck.locks.backend import Busy, Claim, Held, Owner, Taken
from unstuck.locks.sessions import InTransaction, Sessions
from unstuck.locks.statements import (
    HEAD_START_SECONDS,
    Statements,
    microseconds,
    statements_for,
)

SHORTEST_PAUSE = 0.02
LONGEST_PAUSE = 0.2
HEAD_START = microseconds(HEAD_START_SECONDS)

KNOWN_SECONDS = 4.0
"""So long a waiter is known who does not ask again."""

LATELY_SECONDS = 1.5
"""Of a circle are those who have asked within so long; others may have died."""

FREE_SECONDS = 600
"""So long rows stay that nobody holds: longer than any statement runs, which may have
seen the row when it drew a fence."""

PRUNE_EVERY = 100
PRUNE_SECONDS = 60.0
PRUNED_AT_ONCE = 500
CLAIMS_AT_ONCE = 200

TARGET_LENGTH = 255
"""Of a name in the audit."""

Row = Sequence[Any]


class DatabaseBackend:
    """Keeps locks in the database with this alias; a ``Backend``."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._sessions = Sessions(alias)
        self._chores = _Chores()
        self._waiting = _Waiting()

    def __repr__(self) -> str:
        return f"<locks in the database {self.alias!r}>"

    def take(
        self, name: str, owner: Owner, lease: float, *, waits: bool = False
    ) -> Taken | Busy:
        """Take a lock for ``lease`` seconds, if it is free or its lease is over."""
        facts = _facts(name, owner, lease)
        if waits and (busy := self._still_busy(facts, owner)):
            return busy
        with self._transaction(name) as cursor:
            answer = self._take(cursor, facts, owner, waits)
        if waits:
            self._waiting.note(Claim(name, owner.token), isinstance(answer, Busy))
        if self._chores.are_due():
            # The lock is taken, whatever becomes of these.
            with suppress(LockError):
                self.prune()
        return answer

    def _still_busy(self, facts: Mapping[str, Any], owner: Owner) -> Busy | None:
        """The same without writing: of a crowd that waits, each asks all the time."""
        name = facts["name"]
        if not self._waiting.is_fresh(Claim(name, owner.token)):
            return None
        with self._transaction(name, writes=False) as cursor:
            cursor.execute(self._statements.look, facts)
            row = cursor.fetchone()
            held = None if row is None else _as_held(row)
            if not held or not held.seconds_left or held.owner.token == owner.token:
                return None
            busy = self._busy_with(cursor, facts, owner, held, KNOWN_SECONDS)
        # Whoever seems to be in a circle shows at each question that it still waits.
        return None if busy.cycle else busy

    def _take(
        self, cursor: Any, facts: Mapping[str, Any], owner: Owner, waits: bool
    ) -> Taken | Busy:
        known = self._statements
        cursor.execute(known.take, facts)
        is_new = cursor.rowcount == 1
        cursor.execute(known.row, facts)
        # Until the transaction ends, nothing changes it.
        held = _as_held(cursor.fetchone())
        if not is_new:
            if not held.seconds_left or held.owner.token != owner.token:
                return self._busy(cursor, facts, owner, held, waits)
            cursor.execute(known.sql(sql.EXTEND), facts)
        if waits:
            cursor.execute(sql.FORGET, facts)
        return Taken(held.fence)

    def _busy(
        self,
        cursor: Any,
        facts: Mapping[str, Any],
        owner: Owner,
        held: Held,
        waits: bool,
    ) -> Taken | Busy:
        if waits:
            cursor.execute(self._statements.sql(sql.REGISTER), facts)
        if held.seconds_left:
            if not waits:
                return Busy(held)
            return self._busy_with(cursor, facts, owner, held, LATELY_SECONDS)
        # It is free, and somebody has waited longer; or had, until just now.
        cursor.execute(self._statements.sql(sql.FIRST_OF_OTHERS), facts)
        if (first := cursor.fetchone()) is None:
            return self._take(cursor, facts, owner, waits)
        return Busy(replace(held, owner=_as_owner(first)))

    def _busy_with(
        self,
        cursor: Any,
        facts: Mapping[str, Any],
        owner: Owner,
        held: Held,
        within: float,
    ) -> Busy:
        """Who holds it, and the circle of those who have asked within so many seconds."""
        spare = microseconds(KNOWN_SECONDS - within)
        cursor.execute(self._statements.sql(sql.WAITS), {**facts, "spare": spare})
        return Busy(held, _cycle(held, owner, cursor.fetchall()))

    def wait(self, name: str, owner: Owner, seconds: float) -> None:
        """Return when the lock may be free, at the latest after so long."""
        until, ahead = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _pause(ahead)))
            with self._transaction(name, writes=False) as cursor:
                cursor.execute(self._statements.sql(sql.PLACE), _facts(name, owner))
                row = cursor.fetchone()
            if row is None:
                return
            held_for, ahead = row
            # Those who wait longer are left a moment to see that it is free.
            if held_for <= 0 and (not ahead or -held_for >= HEAD_START):
                return

    def give_up(self, name: str, owner: Owner) -> None:
        """The owner no longer waits."""
        self._waiting.note(Claim(name, owner.token), False)
        with self._transaction(name) as cursor:
            cursor.execute(sql.GIVE_UP, _facts(name, owner))

    def renew(self, claims: Collection[Claim], lease: float) -> set[Claim]:
        """Let the leases begin anew; returns those that are not held, or no longer."""
        wanted = sorted(set(claims))
        held: set[Claim] = set()
        for start in range(0, len(wanted), CLAIMS_AT_ONCE):
            held |= self._renewed(wanted[start : start + CLAIMS_AT_ONCE], lease)
        return set(wanted) - held

    def _renewed(self, claims: Sequence[Claim], lease: float) -> set[Claim]:
        known = self._statements
        with self._transaction(claims[0].name) as cursor:
            cursor.execute(known.still_held(len(claims)), _flat(claims))
            held = sorted(Claim(*row) for row in cursor.fetchall())
            if held:
                cursor.execute(
                    known.renew(len(held)), [microseconds(lease), *_flat(held)]
                )
        return set(held)

    def release(self, claim: Claim) -> bool:
        """Let go; ``False`` if it was not held, or no longer."""
        with self._transaction(claim.name) as cursor:
            cursor.execute(self._statements.sql(sql.LET_GO), claim._asdict())
            return bool(cursor.rowcount == 1)

    def is_held(self, claim: Claim) -> bool:
        """Whether that owner holds that lock now."""
        with self._transaction(claim.name, writes=False) as cursor:
            cursor.execute(self._statements.sql(sql.IS_HELD), claim._asdict())
            return cursor.fetchone() is not None

    def note(self, claim: Claim, notes: Mapping[str, str]) -> bool:
        """Write down what the next holder shall know; an empty text is forgotten."""
        with self._transaction(claim.name) as cursor:
            cursor.execute(self._statements.still_held(1), _flat([claim]))
            if cursor.fetchone() is None:
                return False
            for about, text in notes.items():
                facts = {"name": claim.name, "about": about, "text": text}
                cursor.execute(sql.NOTE if text else sql.FORGET_NOTE, facts)
        return True

    def notes(self, name: str) -> dict[str, str]:
        """All that the holders of a lock have written down."""
        with self._transaction(name, writes=False) as cursor:
            cursor.execute(sql.NOTES, {"name": name})
            return dict(cursor.fetchall())

    def all_held(self) -> list[Held]:
        """All locks that are held now, by name."""
        waiting: dict[str, list[Owner]] = {}
        with self._transaction(writes=False) as cursor:
            cursor.execute(self._statements.sql(sql.WAITING))
            for name, *owner in cursor.fetchall():
                waiting.setdefault(name, []).append(_as_owner(owner))
            cursor.execute(self._statements.all_held)
            return [
                _as_held(row, tuple(waiting.get(row[0], ())))
                for row in cursor.fetchall()
            ]

    def evict(
        self, name: str, note: str = "", *, fence: int | None = None
    ) -> Held | None:
        """Take a lock from whoever holds it; who that was. The audit has the note."""
        facts = {"name": name}
        with self._transaction(name) as cursor:
            cursor.execute(self._statements.row, facts)
            row = cursor.fetchone()
            if row is None or row[-1] <= 0:
                return None
            held = _as_held(row)
            if fence not in (None, held.fence):
                return None
            cursor.execute(self._statements.sql(sql.EVICT), facts)
            cursor.execute(self._statements.sql(sql.WAITING_FOR), facts)
            waiting = tuple(_as_owner(one[1:]) for one in cursor.fetchall())
            return replace(held, waiting=waiting)

    def note_on(self, name: str, fence: int) -> str:
        """Who took the lock from the holder with that fence, and why, if somebody did."""
        with self._transaction(name, writes=False) as cursor:
            cursor.execute(sql.EVICTIONS, {"target": name[:TARGET_LENGTH]})
            for who, why, details in cursor.fetchall():
                facts = json.loads(details) if isinstance(details, str) else details
                if facts.get("fence", fence) == fence:
                    return f"{who}: {why}"
        return ""

    def prune(self) -> None:
        """Delete rows of locks that are free for long, and of waiters that are gone."""
        bounds = [microseconds(FREE_SECONDS), PRUNED_AT_ONCE]
        for statement in (sql.PRUNE, sql.PRUNE_WAITERS):
            with self._transaction() as cursor:
                cursor.execute(self._statements.sql(statement), bounds)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._sessions.close()

    @property
    def _statements(self) -> Statements:
        return statements_for(self._sessions.vendor, self.alias)

    @contextmanager
    def _transaction(self, name: str = "", *, writes: bool = True) -> Iterator[Any]:
        known = self._statements
        try:
            with self._sessions.transaction(
                known.begin if writes else known.begin_to_read
            ) as cursor:
                yield cursor
        except InTransaction as error:
            raise _is_in_transaction(name) from error
        except Error as error:
            raise _unreachable(name, self.alias, error) from error


class _Waiting:
    """When the waits of this process were written down."""

    def __init__(self) -> None:
        self._noted: dict[Claim, float] = {}

    def note(self, claim: Claim, waits: bool) -> None:
        """It has just been, or is no longer."""
        if waits:
            self._noted[claim] = time.monotonic()
        else:
            self._noted.pop(claim, None)

    def is_fresh(self, claim: Claim) -> bool:
        """Whether that needs no writing yet."""
        noted = self._noted.get(claim)
        return noted is not None and time.monotonic() - noted < KNOWN_SECONDS / 2


class _Chores:
    """When a process prunes: after so many locks were taken, or so long."""

    def __init__(self) -> None:
        self._taken = 0
        self._done_at = time.monotonic()

    def are_due(self) -> bool:
        """Whether it is time again; counts as one more lock."""
        self._taken += 1
        now = time.monotonic()
        due = self._taken >= PRUNE_EVERY or now - self._done_at >= PRUNE_SECONDS
        if due:
            self._taken, self._done_at = 0, now
        return due


def _pause(ahead: int) -> float:
    """Who is next looks more often; and not all do at the same time."""
    dice = random.random()  # noqa: S311 - no secret
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * (1 + 2 * ahead)) * (0.5 + dice / 2)


def _facts(name: str, owner: Owner, lease: float = 0.0) -> dict[str, Any]:
    return {
        "name": name,
        "token": owner.token,
        "born": owner.born,
        "pid": owner.pid,
        "node": _storable(owner.node),
        "task_id": _storable(owner.task_id),
        "task_name": _storable(owner.task_name),
        "lease": microseconds(lease),
        "known": microseconds(KNOWN_SECONDS),
    }


def _storable(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def _as_held(row: Row, waiting: tuple[Owner, ...] = ()) -> Held:
    name, *owner, since, fence, left = row
    return Held(
        name=name,
        owner=_as_owner(owner),
        since=since / 1_000_000,
        fence=fence,
        seconds_left=max(0.0, left / 1_000_000),
        waiting=waiting,
    )


def _as_owner(row: Row) -> Owner:
    token, born, pid, node, task_id, task_name = row
    return Owner(
        token=token,
        born=born,
        pid=pid,
        node=node,
        task_id=task_id,
        task_name=task_name,
    )


def _cycle(
    held: Held, owner: Owner, waits: Sequence[Row]
) -> tuple[tuple[str, Owner], ...]:
    """The circle that our waiting closes."""
    after = {row[2]: (row[0], row[1], _as_owner(row[2:])) for row in waits}
    circle, token = [(held.name, owner)], held.owner.token
    while token != owner.token:
        if token not in after:
            return ()
        token, name, waiter = after.pop(token)
        circle.append((name, waiter))
    return tuple(circle)


def _flat(claims: Collection[Claim]) -> list[str]:
    return [text for claim in claims for text in claim]


def _is_in_transaction(name: str) -> LockError:
    return LockError(
        f"The lock {name!r} can be neither taken nor released now: SQLite has one "
        f"writer, and this code is in a transaction that keeps it from anybody else. "
        f"Let the whole lock be outside of the transaction, or keep locks in Redis or "
        f"PostgreSQL.",
        name=name,
    )


def _unreachable(name: str, alias: str, error: Exception) -> LocksUnreachable:
    what = f"the lock {name!r} is unknown" if name else "nothing is known of locks"
    return LocksUnreachable(
        f"The database {alias!r} did not do it, so {what}: "
        f"{' '.join(str(error).split()) or type(error).__name__}. Can it be reached, "
        f"and was `manage.py migrate unstuck` run?",
        name=name,
    )
