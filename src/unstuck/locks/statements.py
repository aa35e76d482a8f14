"""What the database is told about locks: SQL, for PostgreSQL and SQLite.

Times are microseconds since 1970, and always by the clock of the database. A row of
``unstuck_lock`` is held while its ``until`` has not come; from then on it is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

from unstuck.core.errors import SettingsError

HEAD_START_SECONDS = 1.0
"""So long a lock that came free is left to those who waited before."""

OWNER = "token, born, pid, node, task_id, task_name"
GIVEN = "%(token)s, %(born)s, %(pid)s, %(node)s, %(task_id)s, %(task_name)s"

BEFORE = """SELECT 1 FROM unstuck_lockwaiter AS before
    WHERE before.name = held.name AND before.token <> %(token)s AND before.until > $now
    AND NOT EXISTS (
        SELECT 1 FROM unstuck_lockwaiter AS mine
        WHERE mine.token = %(token)s AND mine.name = held.name AND mine.until > $now
        AND (mine.since, mine.token) < (before.since, before.token))"""
"""Those who have waited longer."""

PLACE = """
SELECT held.until - $now, (SELECT count(*) FROM ($before LIMIT 5) AS them)
FROM unstuck_lock AS held WHERE held.name = %(name)s""".replace("$before", BEFORE)
"""How long a lock is held, and how many are before one; of a crowd, five."""

HELD = "SELECT name, $owner, since, fence, until - $now FROM unstuck_lock AS held"

# Higher than that of any row, whose highest is never deleted, and so than that of any
# row that was. One who has just waited for this row may not see the others as they are
# now, but this one.
HIGHEST = "(SELECT coalesce(max(fence), 0) + 1 FROM unstuck_lock)"

TAKE = """
INSERT INTO unstuck_lock AS held (name, fence, $owner, since, until)
VALUES (%(name)s, $greatest($highest, $now), $given, $now, $now + %(lease)s)
ON CONFLICT (name) DO UPDATE SET
    fence = $greatest(held.fence + 1, $highest, $now),
    token = excluded.token, born = excluded.born, pid = excluded.pid,
    node = excluded.node, task_id = excluded.task_id, task_name = excluded.task_name,
    since = $now, until = $now + %(lease)s
WHERE NOT (held.until > $now OR held.until > $now - $head_start AND EXISTS ($before))"""
"""If it is free, and nobody is before us who may not yet have seen that."""

EXTEND = """
UPDATE unstuck_lock SET until = $now + %(lease)s WHERE name = %(name)s"""

REGISTER = """
INSERT INTO unstuck_lockwaiter AS mine (name, $owner, since, until)
VALUES (%(name)s, $given, $now, $now + %(known)s)
ON CONFLICT (token) DO UPDATE SET
    name = excluded.name, until = excluded.until,
    since = CASE WHEN mine.name = excluded.name AND mine.until > $now
            THEN mine.since ELSE excluded.since END"""

FORGET = "DELETE FROM unstuck_lockwaiter WHERE token = %(token)s"
GIVE_UP = FORGET + " AND name = %(name)s"

# One statement, so that all of it is seen at the same moment: what is seen one after the
# other may look like a circle that never was.
WAITS = """
WITH RECURSIVE ahead (token) AS (
    SELECT token FROM unstuck_lock WHERE name = %(name)s AND until > $now
    UNION
    SELECT held.token FROM ahead
    JOIN unstuck_lockwaiter AS waiter ON waiter.token = ahead.token
    JOIN unstuck_lock AS held ON held.name = waiter.name
    WHERE waiter.until > $now + %(spare)s AND held.until > $now)
SELECT held.token, waiter.name, waiter.token, waiter.born, waiter.pid, waiter.node,
    waiter.task_id, waiter.task_name
FROM ahead
JOIN unstuck_lockwaiter AS waiter ON waiter.token = ahead.token
JOIN unstuck_lock AS held ON held.name = waiter.name
WHERE waiter.until > $now + %(spare)s AND held.until > $now"""

WAITING = """
SELECT name, $owner FROM unstuck_lockwaiter WHERE until > $now ORDER BY since, token"""

WAITING_FOR = """
SELECT name, $owner FROM unstuck_lockwaiter
WHERE name = %(name)s AND until > $now ORDER BY since, token"""

FIRST_OF_OTHERS = """
SELECT $owner FROM unstuck_lockwaiter
WHERE name = %(name)s AND token <> %(token)s AND until > $now
ORDER BY since, token LIMIT 1"""

STILL_HELD = """
SELECT name, token FROM unstuck_lock
WHERE (name, token) IN (VALUES $claims) AND until > $now ORDER BY name $and_lock"""

RENEW = """
UPDATE unstuck_lock SET until = $now + %s WHERE (name, token) IN (VALUES $claims)"""

LET_GO = """
UPDATE unstuck_lock SET token = '', until = $now
WHERE name = %(name)s AND token = %(token)s AND until > $now"""

EVICT = "UPDATE unstuck_lock SET token = '', until = $now WHERE name = %(name)s"

EVICTIONS = """
SELECT who, why, details FROM unstuck_auditentry
WHERE what = 'release lock' AND target = %(target)s ORDER BY at DESC LIMIT 10"""
"""The latest releases of a lock by somebody; the audit lies beside the locks."""

IS_HELD = """
SELECT 1 FROM unstuck_lock
WHERE name = %(name)s AND token = %(token)s AND until > $now"""

NOTE = """
INSERT INTO unstuck_locknote (name, about, text)
VALUES (%(name)s, %(about)s, %(text)s)
ON CONFLICT (name, about) DO UPDATE SET text = excluded.text"""

FORGET_NOTE = """
DELETE FROM unstuck_locknote WHERE name = %(name)s AND about = %(about)s"""

NOTES = "SELECT about, text FROM unstuck_locknote WHERE name = %(name)s"

PRUNE = """
DELETE FROM unstuck_lock WHERE id IN (
    SELECT id FROM unstuck_lock
    WHERE until < $now - %s AND fence < (SELECT max(fence) FROM unstuck_lock)
    ORDER BY until LIMIT %s $and_skip)"""

PRUNE_WAITERS = """
DELETE FROM unstuck_lockwaiter WHERE token IN (
    SELECT token FROM unstuck_lockwaiter
    WHERE until < $now - %s ORDER BY until LIMIT %s $and_skip)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The SQL of one kind of database."""

    begin: str
    """Starts a transaction that writes, with its bounds."""

    begin_to_read: str

    now: str
    greatest: str
    and_lock: str = ""
    and_skip: str = ""

    @property
    def take(self) -> str:
        """Take a lock, if it is free and nobody is before us."""
        return self.sql(TAKE.replace("$before", BEFORE))

    @property
    def look(self) -> str:
        """One lock, held or not, as it was a moment ago."""
        return self.sql(HELD + " WHERE held.name = %(name)s")

    @property
    def row(self) -> str:
        """One lock, held or not, kept from changing."""
        return self.sql(HELD + " WHERE held.name = %(name)s $and_lock")

    @property
    def all_held(self) -> str:
        """All locks that are held."""
        return self.sql(HELD + " WHERE held.until > $now ORDER BY held.name")

    def still_held(self, claims: int) -> str:
        """Those of so many claims that hold, kept from changing."""
        return self.sql(STILL_HELD, claims=_pairs(claims))

    def renew(self, claims: int) -> str:
        """Let the leases of so many claims begin anew."""
        return self.sql(RENEW, claims=_pairs(claims))

    def sql(self, text: str, **words: str) -> str:
        """A statement of this module, for this kind of database."""
        return Template(text).substitute(
            now=self.now,
            greatest=self.greatest,
            highest=HIGHEST,
            owner=OWNER,
            given=GIVEN,
            head_start=str(microseconds(HEAD_START_SECONDS)),
            and_lock=self.and_lock,
            and_skip=self.and_skip,
            **words,
        )


BOUNDS = """SET LOCAL statement_timeout = '4s'; SET LOCAL lock_timeout = '3s';
SET LOCAL idle_in_transaction_session_timeout = '4s'"""

POSTGRESQL = Statements(
    # For this transaction only: behind a proxy, the next one is somebody else's. A
    # process that is stopped in the middle of one must not keep the others waiting.
    begin=f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {BOUNDS}",
    begin_to_read=f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {BOUNDS}",
    now="(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    greatest="greatest",
    and_lock="FOR UPDATE",
    and_skip="FOR UPDATE SKIP LOCKED",
)

SQLITE = Statements(
    begin="BEGIN IMMEDIATE",
    begin_to_read="BEGIN",
    now="CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    greatest="max",
)

BY_VENDOR = {"postgresql": POSTGRESQL, "sqlite": SQLITE}


def statements_for(vendor: str, alias: str) -> Statements:
    """The SQL for this kind of database; ``SettingsError`` if locks cannot be there."""
    if vendor not in BY_VENDOR:
        raise SettingsError(
            [
                f"Locks cannot be kept in the database {alias!r}, which is {vendor}: "
                f"only in PostgreSQL, SQLite or Redis. Let UNSTUCK['LOCK_URL'] be a "
                f"redis:// URL, or UNSTUCK['DATABASE'] the alias of such a database."
            ]
        )
    return BY_VENDOR[vendor]


def microseconds(seconds: float) -> int:
    """As times are stored."""
    return round(seconds * 1_000_000)


def _pairs(number: int) -> str:
    return ", ".join(["(%s, %s)"] * number)
